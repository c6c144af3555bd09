// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxUserFile bounds the image's user database.
const maxUserFile = 4 << 20

// ResolveUser finds the numbers of the user that a container runs as, with the
// image's own /etc/passwd and /etc/group.
func ResolveUser(rootfs string, security *runtimeapi.LinuxContainerSecurityContext, imageUser string) (specs.User, error) {
	who := imageUser
	switch {
	case security.GetRunAsUser() != nil:
		who = strconv.FormatInt(security.GetRunAsUser().GetValue(), 10)
	case security.GetRunAsUsername() != "":
		who = security.GetRunAsUsername()
	}
	if group := security.GetRunAsGroup(); group != nil {
		if security.GetRunAsUser() == nil && security.GetRunAsUsername() == "" {
			return specs.User{}, fmt.Errorf("user group %q is specified without user", strconv.FormatInt(group.GetValue(), 10))
		}
		name, _, _ := strings.Cut(who, ":")
		who = name + ":" + strconv.FormatInt(group.GetValue(), 10)
	}
	passwd, groups := readUserFile(rootfs, "etc/passwd"), readUserFile(rootfs, "etc/group")
	found, err := user.GetExecUser(who, &user.ExecUser{}, bytes.NewReader(passwd), bytes.NewReader(groups))
	if err != nil {
		return specs.User{}, fmt.Errorf("user %q: %w", who, err)
	}
	out := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	add := func(gid int64) error {
		if gid < 0 || gid > math.MaxUint32 {
			return fmt.Errorf("group %d is out of range", gid)
		}
		if !slices.Contains(out.AdditionalGids, uint32(gid)) {
			out.AdditionalGids = append(out.AdditionalGids, uint32(gid))
		}
		return nil
	}
	if err := add(int64(found.Gid)); err != nil {
		return out, err
	}
	if security.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		for _, gid := range memberships(found.Uid, passwd, groups) {
			if err := add(int64(gid)); err != nil {
				return out, err
			}
		}
	}
	for _, gid := range security.GetSupplementalGroups() {
		if err := add(gid); err != nil {
			return out, err
		}
	}
	return out, nil
}

// memberships are the groups that the image gives a user, whether or not a
// group was asked for.
func memberships(uid int, passwd, groups []byte) []int {
	users, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(users) == 0 {
		return nil
	}
	list, err := user.ParseGroupFilter(bytes.NewReader(groups), func(g user.Group) bool { return slices.Contains(g.List, users[0].Name) })
	if err != nil {
		return nil
	}
	var gids []int
	for _, g := range list {
		gids = append(gids, g.Gid)
	}
	return gids
}

// readUserFile reads a file of the image, whose symbolic links may not lead
// outside; an image without it has no names.
func readUserFile(rootfs, name string) []byte {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil
	}
	defer root.Close()
	if st, err := root.Stat(name); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	if err != nil {
		return nil
	}
	return raw
}
