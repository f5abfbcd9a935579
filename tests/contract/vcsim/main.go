// Command vcsim runs govmomi's vCenter simulator on loopback, with the inventory that the contract
// suite expects. It ends when its standard input does; all that it writes lies in TMPDIR.
//
// The first line of its input is its settings, each further line an order. Every line is JSON, and
// is answered by a line of JSON once what it says holds.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

const gib = int64(1) << 30

var ctx = context.Background()

// settings say who may log in, and by how many milliseconds things are delayed: calls by the name
// of their method, such as CloneVM_Task, and the work of tasks by theirs, such as CloneVm.
type settings struct {
	Username, Password     string
	CallDelays, TaskDelays map[string]int
}

// order says which fault rules hold from now on, or what becomes of a VM. What it leaves out stays.
type order struct {
	Faults          *[]rule
	VM              string
	DisabledMethod  *[]string
	ConnectionState types.VirtualMachineConnectionState
}

// rule is a rule of the simulator itself; FaultName is the vim type of a fault without properties
// that it has no FaultType for.
type rule struct {
	simulator.FaultInjectionRule
	FaultName string
}

func main() {
	log.SetOutput(io.Discard) // the simulator tells of every call that it refuses
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	in.DisallowUnknownFields()
	var wanted settings
	check(in.Decode(&wanted))

	model := simulator.VPX()
	model.Host, model.ClusterHost, model.Portgroup, model.Datastore, model.Machine = 0, 1, 0, 0, 0
	model.ServiceContent.About.ApiVersion = "8.0.3.0"
	check(model.Create())
	furnish(model.Service)
	// By default a task locks its object while it is delayed, so that nobody can read it.
	simulator.TaskDelay.MethodDelay = map[string]int{"LockHandoff": 0}
	maps.Copy(simulator.TaskDelay.MethodDelay, wanted.TaskDelays)
	model.DelayConfig.MethodDelay = wanted.CallDelays

	service := model.Service
	service.TLS = new(tls.Config)
	service.Listen = &url.URL{User: url.UserPassword(wanted.Username, wanted.Password)}
	server := service.NewServer()
	ca := must(server.CertificateFile())
	check(out.Encode(map[string]string{"host": server.URL.Hostname(), "port": server.URL.Port(), "ca_file": ca}))
	for {
		var wanted order
		err := in.Decode(&wanted)
		if err == io.EOF {
			return
		}
		check(err)
		if wanted.Faults != nil {
			setFaults(service, *wanted.Faults)
		}
		if wanted.VM != "" {
			change(service.Context, wanted)
		}
		check(out.Encode("done"))
	}
}

func setFaults(service *simulator.Service, rules []rule) {
	service.ClearFaultRules()
	for _, one := range rules {
		if one.FaultName != "" {
			kind, ok := types.TypeFunc()(one.FaultName)
			if !ok {
				check(fmt.Errorf("vim has no type %s", one.FaultName))
			}
			one.FaultType = simulator.FaultTypeCustom
			one.Fault = reflect.New(kind).Interface().(types.BaseMethodFault)
		}
		service.AddFaultRule(&one.FaultInjectionRule)
	}
}

func change(ctx *simulator.Context, wanted order) {
	var changes []types.PropertyChange
	if wanted.DisabledMethod != nil {
		changes = append(changes, types.PropertyChange{Name: "disabledMethod", Val: *wanted.DisabledMethod})
	}
	if wanted.ConnectionState != "" {
		changes = append(changes, types.PropertyChange{Name: "runtime.connectionState", Val: wanted.ConnectionState})
	}
	vm := ctx.Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: wanted.VM})
	ctx.Map.AtomicUpdate(ctx, vm, changes)
}

// furnish fills a datacenter that has a cluster of one host, and nothing else.
func furnish(service *simulator.Service) {
	client := must(vim25.NewClient(ctx, service))
	finder := find.NewFinder(client)
	datacenter := must(finder.Datacenter(ctx, "DC0"))
	finder.SetDatacenter(datacenter)
	host := must(finder.HostSystem(ctx, "*")).ConfigManager()
	stores := must(host.DatastoreSystem(ctx))
	for _, name := range []string{"datastore-0", "datastore-1"} {
		folder := filepath.Join(os.TempDir(), name)
		check(os.Mkdir(folder, 0o700))
		ref := must(stores.CreateLocalDatastore(ctx, name, folder)).Reference()
		summary := &service.Context.Map.Get(ref).(*simulator.Datastore).Summary
		summary.Capacity, summary.FreeSpace = 500*gib, 500*gib
	}
	networks := must(host.NetworkSystem(ctx))
	for _, name := range []string{"lab", "sealed"} {
		check(networks.AddPortGroup(ctx, types.HostPortGroupSpec{Name: name, VswitchName: "vSwitch0"}))
	}
	cluster := must(finder.ClusterComputeResource(ctx, "*"))
	finish(cluster.Rename(ctx, "cluster-0"))
	folder := must(datacenter.Folders(ctx)).VmFolder
	must(folder.CreateFolder(ctx, "labs"))
	addTemplate(client, must(folder.CreateFolder(ctx, "templates")), must(cluster.ResourcePool(ctx)))
}

func addTemplate(client *vim25.Client, folder *object.Folder, pool *object.ResourcePool) {
	var devices object.VirtualDeviceList
	scsi := must(devices.CreateSCSIController("pvscsi"))
	disk := devices.CreateDisk(scsi.(types.BaseVirtualController), types.ManagedObjectReference{}, "")
	disk.CapacityInKB = 32 * gib / 1024
	backing := new(types.VirtualEthernetCardNetworkBackingInfo)
	backing.DeviceName = "lab"
	devices = append(devices, scsi, disk, must(devices.CreateEthernetCard("vmxnet3", backing)))
	spec := types.VirtualMachineConfigSpec{
		Name: "debian-13", NumCPUs: 2, MemoryMB: 4096,
		Files:        &types.VirtualMachineFileInfo{VmPathName: "[datastore-0]"},
		DeviceChange: must(devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)),
	}
	made := finish(folder.CreateVM(ctx, spec, pool, nil)).(types.ManagedObjectReference)
	vm := object.NewVirtualMachine(client, made)
	// Its change version is born with its first change.
	finish(vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{Annotation: "base"}))
	finish(vm.CreateSnapshot(ctx, "labctl-base", "", false, false))
}

// finish waits for a task that was just started, and returns its result.
func finish(task *object.Task, err error) types.AnyType {
	check(err)
	return must(task.WaitForResult(ctx)).Result
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vcsim:", err)
		os.Exit(1)
	}
}
