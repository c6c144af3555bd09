// SPDX-License-Identifier: Apache-2.0

package oom

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// Processes that end for a lack of the machine's memory are told, those of control
// groups at their limits are not.
func TestWatcher(t *testing.T) {
	const log = `6,1,1,-;usb 1-1: Killed process 7 (not this one)
4,2,1,-;dd invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=999
 SUBSYSTEM=x
6,3,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/kubepods/pod1,task_memcg=/kubepods/pod1/c,task=dd,pid=10,uid=0
3,4,1,-;Memory cgroup out of memory: Killed process 10 (dd) total-vm:1kB, anon-rss:1kB
4,5,1,-;java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
6,6,1,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/kubepods/pod2/c,task=java,pid=11,uid=0
3,7,1,-;Out of memory: Killed process 11 (java (main)) total-vm:1kB, anon-rss:1kB
4,8,1,-;x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
6,9,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/,task_memcg=/,task=x,pid=12,uid=0
3,10,1,-;Memory cgroup out of memory: Killed process 12 (x) total-vm:1kB
3,11,1,-;Out of memory: Killed process 13 (y) total-vm:1kB
`
	var got []string
	w := Watcher{Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(log)), nil },
		Killed: func(process string, pid int) { got = append(got, fmt.Sprint(process, " ", pid)) }}
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"java (main) 11", "x 12"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
