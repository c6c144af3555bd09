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
