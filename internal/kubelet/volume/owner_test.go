// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// It is told after half a minute that files are still being given away, and each
// minute from then on how many have been.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files atomic.Int64
		events := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		go progress(ctx, "u1/volumes/v", &files, func(reason, message string) { events <- reason + " " + message })
		time.Sleep(firstProgress - time.Second)
		synctest.Wait()
		if len(events) != 0 {
			t.Errorf("it was told early: %q", <-events)
		}
		files.Store(7)
		time.Sleep(nextProgress + 2*time.Second)
		synctest.Wait()
		cancel()
		time.Sleep(time.Hour)
		close(events)
		var told []string
		for e := range events {
			told = append(told, e)
		}
		if want := []string{"VolumePermissionChangeInProgress Setting volume ownership for u1/volumes/v is taking longer than expected, consider using OnRootMismatch - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods",
			"VolumePermissionChangeInProgress Setting volume ownership for u1/volumes/v, processed 7 files."}; !slices.Equal(told, want) {
			t.Errorf("got %q, want %q", told, want)
		}
	})
}
