// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestExplain finds in CRIU's log why it failed.
func TestExplain(t *testing.T) {
	log := filepath.Join(t.TempDir(), "dump.log")
	failed := errors.New("criu failed: type DUMP errno 0")
	if err := explain(failed, log); err.Error() != failed.Error() {
		t.Errorf("without a log: %v", err)
	}
	const text = `(00.633807) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.646068) net: Lock network
(00.700000) Error (criu/mount.c:1202): mnt: Mount 709 ./etc/hosts has unreachable sharing
(00.700001) Error (criu/cr-dump.c:2111): Dumping FAILED.
`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "criu failed: type DUMP errno 0: mnt: Mount 709 ./etc/hosts has unreachable sharing; Dumping FAILED."
	if err := explain(failed, log); err == nil || err.Error() != want || !errors.Is(err, failed) {
		t.Errorf("%v, want %s", err, want)
	}
	if err := explain(nil, log); err != nil {
		t.Error(err)
	}
}
