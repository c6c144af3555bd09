// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kaji/internal/kubelet/checkpoint"
)

// TestUpstream reads what upstream's agent 1.37 wrote and writes the same, byte
// for byte, checksums included.
func TestUpstream(t *testing.T) {
	want, err := os.ReadFile("testdata/upstream.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read("testdata/upstream.json")
	if err != nil {
		t.Fatal(err)
	}
	blocks := s.Entries["7499d86c-2120-41c2-9ddc-9938e5ecff09"]["c"]
	if s.Policy != "Static" || s.Machine[0].MemoryMap["memory"].Reserved != 64<<20 || len(blocks) != 1 || blocks[0].Size != 64<<20 {
		t.Errorf("read %+v", s)
	}
	path := filepath.Join(t.TempDir(), "memory_manager_state")
	if err := Write(path, *s); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		t.Errorf("wrote %s (%v), want %s", got, err, want)
	}
	for old, new := range map[string]string{"67108864}]}}}\"": "67108865}]}}}\"", `"dataChecksum":2665365893`: `"dataChecksum":1`} {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(want), old, new)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("with %s: %v", new, err)
		}
	}
	if s, err := Read(filepath.Join(t.TempDir(), "none")); s != nil || err != nil {
		t.Errorf("without a file: %v, %v", s, err)
	}
}

// TestFirstForm reads the file of agents before the third form.
func TestFirstForm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory_manager_state")
	common := MemoryManagerCheckpoint{PolicyName: "Static", MachineState: NUMANodeMap{}, Entries: ContainerMemoryAssignments{"p": {"c": {{NUMAAffinity: []int{0}, Type: "memory", Size: 1}}}}}
	common.Checksum = sum(common)
	if err := checkpoint.Write(path, common); err != nil {
		t.Fatal(err)
	}
	if s, err := Read(path); err != nil || s.Entries["p"]["c"][0].Size != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	common.Checksum++
	if err := checkpoint.Write(path, common); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !errors.Is(err, checkpoint.ErrCorrupt) {
		t.Errorf("with a wrong checksum: %v", err)
	}
}
