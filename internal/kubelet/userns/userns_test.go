// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// Pods share no range, keep theirs over a restart, and leave it to others.
func TestRanges(t *testing.T) {
	dir := t.TempDir()
	get := func(r *Ranges, pod types.UID, want uint32) {
		t.Helper()
		if first, err := r.Get(pod); err != nil || first != want {
			t.Errorf("pod %s: %d, %v, want %d", pod, first, err, want)
		}
	}
	r := New(dir, 2)
	get(r, "a", 65536)
	get(r, "b", 131072)
	get(r, "a", 65536)
	if _, err := r.Get("c"); err == nil {
		t.Error("a third pod found a range of two")
	}
	data, err := os.ReadFile(filepath.Join(dir, "b", "userns"))
	if want := `{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}`; err != nil || string(data) != want {
		t.Errorf("the file is %s, %v", data, err)
	}

	r = New(dir, 2)
	if err := r.Release("a"); err != nil {
		t.Fatal(err)
	}
	get(r, "b", 131072)
	get(r, "c", 65536)
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
		if first, err := New(dir, 2).Get("b"); err == nil {
			t.Errorf("%q was taken, and %d given", text, first)
		}
	}
}
