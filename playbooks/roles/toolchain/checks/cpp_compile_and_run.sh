set -u
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
cat >main.cpp <<'END'
#include <iostream>
#include <numeric>
#include <vector>

long total(const std::vector<int>& numbers) {
    return std::accumulate(numbers.begin(), numbers.end(), 0L);
}

int main() {
    std::vector<int> numbers(1000);
    std::iota(numbers.begin(), numbers.end(), 1);
    std::cout << "sum " << total(numbers) << '\n';
}
END
cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(trial CXX)
set(CMAKE_CXX_STANDARD 20)
add_executable(trial main.cpp)
END
if ! { cmake -S . -B build -DCMAKE_BUILD_TYPE=Debug && cmake --build build; } >log 2>&1; then
    tail -n 15 log
    echo "the program was not built"
    exit 1
fi
answer=$(./build/trial)
if [ "$answer" != 'sum 500500' ]; then
    echo "the program answered '$answer' instead of 'sum 500500'"
    exit 1
fi
stopped=$(gdb -q -batch -ex 'break total' -ex run -ex 'print numbers.size()' ./build/trial 2>&1)
if ! grep -q '^\$1 = 1000$' <<<"$stopped"; then
    tail -n 5 <<<"$stopped"
    echo "gdb did not stop the program in its function"
    exit 1
fi
echo "built with cmake and $(g++ --version | head -n 1 | grep -oE '[0-9.]+$' | sed 's/^/g++ /'), answered '$answer', stopped in gdb"
