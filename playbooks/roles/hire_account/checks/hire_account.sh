set -u
. /etc/labctl.env
if ! entry=$(getent passwd "$HIRE_LOGIN"); then
    echo "there is no account $HIRE_LOGIN"
    exit 1
fi
password=$(getent shadow "$HIRE_LOGIN" | cut -d: -f2)
if [ "$password" != '*' ]; then
    echo "the password field of $HIRE_LOGIN is not '*': somebody set or locked a password"
    exit 1
fi
label=$(cut -d: -f5 <<<"$entry")
case "$label" in
    *"lab $LAB_ID until $LEASE_END"*) ;;
    *)
        echo "the account's label is '$label', not 'lab $LAB_ID until $LEASE_END'"
        exit 1
        ;;
esac
echo "$HIRE_LOGIN: no password, labelled '$label'"
