// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"os"
	"path/filepath"
	"strings"
)

// AppArmor says whether the kernel of the machine below root enforces profiles.
func AppArmor(root string) bool {
	if _, err := os.Stat(filepath.Join(root, "sys/kernel/security/apparmor")); err != nil {
		return false
	}
	raw, err := os.ReadFile(filepath.Join(root, "sys/module/apparmor/parameters/enabled"))
	return err == nil && strings.HasPrefix(string(raw), "Y")
}
