// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEnabled(t *testing.T) {
	dir := t.TempDir()
	parameter := filepath.Join(dir, "enabled")
	for text, want := range map[string]bool{"Y\n": true, "N\n": false, "": false} {
		if err := os.WriteFile(parameter, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := enabled(dir, parameter); got != want {
			t.Errorf("parameter %q: %t", text, got)
		}
		if enabled(filepath.Join(dir, "none"), parameter) {
			t.Errorf("parameter %q: enabled without the kernel's interface", text)
		}
	}
}

func TestLoaded(t *testing.T) {
	list := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(list, []byte("kaji-default (enforce)\n/usr/bin/man (enforce)\nwith a blank (complain)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"kaji-default": true, "/usr/bin/man": true, "with a blank": true, "kaji": false, "": false, "with a": false} {
		if got, err := loaded(list, name); got != want || err != nil {
			t.Errorf("%q: %t, %v", name, got, err)
		}
	}
	if _, err := loaded(list+"-none", "any"); err == nil {
		t.Error("no error without the kernel's list")
	}
}

// TestDefault gives the kernel the profile and takes it away, where there is
// AppArmor; elsewhere nothing is to be taken away.
func TestDefault(t *testing.T) {
	const name = "kaji-default-test"
	if !Enabled() {
		if err := unload(name); err != nil {
			t.Fatal(err)
		}
		return
	}
	for range 2 { // loading again replaces it
		if err := load(name); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := Loaded(name); !have || err != nil {
		t.Errorf("loaded: %t, %v", have, err)
	}
	for range 2 {
		if err := unload(name); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := Loaded(name); have || err != nil {
		t.Errorf("loaded after all: %t, %v", have, err)
	}
}
