// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"runtime"

	"github.com/vishvananda/netns"
)

// Within calls f in the network namespace of the file descriptor, or where the
// caller is when it is zero. Goroutines that f starts are not inside.
func Within(fd int, f func() error) error {
	if fd == 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(fd)); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
