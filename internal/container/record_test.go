// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A container that has not been started yet is not waited for as a dead one: ten
// seconds later, when it ran, it was ended for that.
func TestDied(t *testing.T) {
	me := newProcess(os.Getpid())
	for _, c := range []struct {
		state runtimeapi.ContainerState
		pid   process
		want  bool
	}{
		{runtimeapi.ContainerState_CONTAINER_CREATED, process{}, false},
		{runtimeapi.ContainerState_CONTAINER_CREATED, me, false},
		{runtimeapi.ContainerState_CONTAINER_RUNNING, me, false},
		{runtimeapi.ContainerState_CONTAINER_RUNNING, process{me.Pid, me.Start + 1}, true},
		{runtimeapi.ContainerState_CONTAINER_EXITED, process{}, false},
	} {
		if got := (&containerRecord{State: c.state, Pid: c.pid}).died(); got != c.want {
			t.Errorf("%v with process %v: died %v", c.state, c.pid, got)
		}
	}
}

// Changed limits are merged with those that a container has, in whichever of the
// two something is missing.
func TestSetResources(t *testing.T) {
	set := func(old, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
		rec := &containerRecord{Config: message[*runtimeapi.ContainerConfig]{&runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{Resources: old}}}}
		setResources(rec, change)
		return rec.Config.value.GetLinux().GetResources()
	}
	high := map[string]string{"memory.high": "1"}
	for _, old := range []*runtimeapi.LinuxContainerResources{nil, {CpuShares: 2}, {CpuShares: 2, Unified: map[string]string{"memory.low": "2"}}} {
		got := set(old, &runtimeapi.LinuxContainerResources{CpuQuota: 3, Unified: high})
		if got.GetCpuQuota() != 3 || got.GetCpuShares() != old.GetCpuShares() || got.GetUnified()["memory.high"] != "1" || got.GetUnified()["memory.low"] != old.GetUnified()["memory.low"] {
			t.Errorf("%v with a change became %v", old, got)
		}
	}
	if got := set(&runtimeapi.LinuxContainerResources{Unified: high}, &runtimeapi.LinuxContainerResources{}); got.GetUnified()["memory.high"] != "1" {
		t.Errorf("without a change: %v", got)
	}
}
