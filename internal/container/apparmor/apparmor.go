// SPDX-License-Identifier: Apache-2.0

// Package apparmor says whether the kernel confines programs by AppArmor, and
// keeps the profile that containers have unless they ask for another. Package
// container calls it.
package apparmor

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Default is the name of the profile of containers that name none.
const Default = "kaji-default"

// The kernel's interface.
const (
	securityDir = "/sys/kernel/security/apparmor"
	parameter   = "/sys/module/apparmor/parameters/enabled"
)

//go:embed profile
var profile string

// Enabled says whether the kernel enforces profiles.
func Enabled() bool { return enabled(securityDir, parameter) }

func enabled(dir, parameter string) bool {
	if _, err := os.Stat(dir); err != nil {
		return false
	}
	raw, err := os.ReadFile(parameter)
	return err == nil && strings.HasPrefix(string(raw), "Y")
}

// Loaded says whether the kernel has the named profile.
func Loaded(name string) (bool, error) { return loaded(filepath.Join(securityDir, "profiles"), name) }

func loaded(list, name string) (bool, error) {
	f, err := os.Open(list)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() { // name (mode)
		if i := strings.LastIndex(lines.Text(), " ("); i >= 0 && lines.Text()[:i] == name {
			return true, nil
		}
	}
	return false, lines.Err()
}

// LoadDefault gives the kernel the default profile, unless it has it. It needs
// the program apparmor_parser, which compiles profiles.
func LoadDefault() error {
	if have, err := Loaded(Default); have || err != nil {
		return err
	}
	return load(Default)
}

// load gives the kernel the default profile under a name.
func load(name string) error {
	parser, err := exec.LookPath("apparmor_parser")
	if errors.Is(err, exec.ErrNotFound) {
		parser, err = exec.LookPath("/sbin/apparmor_parser")
	}
	if err != nil {
		return err
	}
	// -K: it is compiled rarely, a cache of it would be left behind.
	c := exec.Command(parser, "-Kr")
	c.Stdin = strings.NewReader(strings.ReplaceAll(profile, "NAME", name))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("apparmor_parser: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// UnloadDefault takes the default profile from the kernel; it succeeds when it is
// not there. No container may need it any longer.
func UnloadDefault() error { return unload(Default) }

func unload(name string) error {
	f, err := os.OpenFile(filepath.Join(securityDir, ".remove"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(name)
	err = errors.Join(err, f.Close())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
