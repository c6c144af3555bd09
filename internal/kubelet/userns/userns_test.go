// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// Pods share no range, keep theirs over a restart, and leave it to others.
func TestRanges(t *testing.T) {
	dir := t.TempDir()
	get := func(r *Ranges, pod types.UID) uint32 {
		t.Helper()
		first, err := r.Get(pod)
		if err != nil {
			t.Fatal(err)
		}
		return first
	}
	r := New(dir, 2, 0)
	a, b := get(r, "a"), get(r, "b")
	if a+b != 3*Length || a%Length != 0 {
		t.Fatalf("a has %d, b %d", a, b)
	}
	if again := get(r, "a"); again != a {
		t.Errorf("a has %d, then %d", a, again)
	}
	if _, err := r.Get("c"); err == nil {
		t.Error("a third pod found a range of two")
	}
	data, err := os.ReadFile(filepath.Join(dir, "b", "userns"))
	one := fmt.Sprintf(`[{"hostId":%d,"containerId":0,"length":65536}]`, b)
	if want := fmt.Sprintf(`{"uidMappings":%s,"gidMappings":%s}`, one, one); err != nil || string(data) != want {
		t.Errorf("the file is %s, %v", data, err)
	}

	r = New(dir, 2, 0)
	if err := r.Release("a"); err != nil {
		t.Fatal(err)
	}
	if again, c := get(r, "b"), get(r, "c"); again != b || c != a {
		t.Errorf("b has %d, c %d, want %d and %d", again, c, b, a)
	}
}

// Nodes seldom give their first pods the same range.
func TestNodesDiffer(t *testing.T) {
	seen := map[uint32]bool{}
	for range 100 {
		first, err := New(t.TempDir(), 110, 0).Get("a")
		if err != nil {
			t.Fatal(err)
		}
		seen[first] = true
	}
	if len(seen) < 10 {
		t.Errorf("a hundred nodes gave %d ranges", len(seen))
	}
}

func TestForeignFile(t *testing.T) {
	for _, text := range []string{"", "{}", `{"uidMappings":[{"hostId":0,"containerId":0,"length":65536}],"gidMappings":[{"hostId":0,"containerId":0,"length":65536}]}`} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a", "userns"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if first, err := New(dir, 2, 0).Get("b"); err == nil {
			t.Errorf("%q was taken, and %d given", text, first)
		}
	}
}
