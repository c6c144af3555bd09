// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/seccomp"
)

// addProfiles sets the seccomp, AppArmor and SELinux confinement.
func addProfiles(s *specs.Spec, in Input) error {
	security := in.Config.GetLinux().GetSecurityContext()
	var err error
	if !security.GetPrivileged() {
		if s.Linux.Seccomp, err = seccompProfile(secured(security), s, in); err != nil {
			return err
		}
	}
	if s.Process.ApparmorProfile, err = apparmorProfile(security, in.Node); err != nil {
		return err
	}
	if o := security.GetSelinuxOptions(); o != nil && in.Node.SELinux {
		level := cmp.Or(o.GetLevel(), "s0")
		s.Process.SelinuxLabel = strings.Join([]string{cmp.Or(o.GetUser(), "system_u"), cmp.Or(o.GetRole(), "system_r"), cmp.Or(o.GetType(), "container_t"), level}, ":")
		s.Linux.MountLabel = "system_u:object_r:container_file_t:" + level
	}
	return nil
}

// apparmorProfile names the profile that confines a container: by itself the
// runtime's, unless it is privileged.
func apparmorProfile(security *runtimeapi.LinuxContainerSecurityContext, node Node) (string, error) {
	p := apparmor(security)
	switch {
	case p.GetProfileType() == runtimeapi.SecurityProfile_Localhost:
		if !node.AppArmor {
			return "", errors.New("AppArmor profile specified, but AppArmor is not supported or not enabled")
		}
		name := p.GetLocalhostRef()
		if node.AppArmorLoaded != nil {
			if have, err := node.AppArmorLoaded(name); err != nil {
				return "", fmt.Errorf("failed to get container spec opts: failed to generate apparmor spec opts: %w", err)
			} else if !have {
				return "", fmt.Errorf("failed to get container spec opts: failed to generate apparmor spec opts: apparmor profile not found %s", name)
			}
		}
		return name, nil
	case !node.AppArmor || security.GetPrivileged() && p == nil:
		return "", nil
	case p.GetProfileType() == runtimeapi.SecurityProfile_Unconfined && p != nil:
		return "unconfined", nil
	case security.GetPrivileged():
		return "", nil
	}
	return node.AppArmorDefault, nil
}

// apparmor is the profile that is asked for, perhaps in the form of clients that
// do not know the structured one; nil for none.
func apparmor(security *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if p := security.GetApparmor(); p != nil {
		return p
	}
	text := security.GetApparmorProfile() //nolint:staticcheck // kept for such clients
	if name, ok := strings.CutPrefix(text, "localhost/"); ok {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}
	}
	if text == "unconfined" {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	return nil
}

// secured is the seccomp profile that is asked for, perhaps in the former form.
func secured(security *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if p := security.GetSeccomp(); p != nil {
		return p
	}
	text := security.GetSeccompProfilePath() //nolint:staticcheck // kept for such clients
	if path, ok := strings.CutPrefix(text, "localhost/"); ok {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: path}
	}
	if text == "runtime/default" || text == "docker/default" {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}
	return nil
}

func seccompProfile(p *runtimeapi.SecurityProfile, s *specs.Spec, in Input) (*specs.LinuxSeccomp, error) {
	if p == nil {
		return nil, nil
	}
	switch p.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return seccomp.Default(s.Process.Capabilities.Bounding), nil
	case runtimeapi.SecurityProfile_Localhost:
		path := p.GetLocalhostRef()
		if !filepath.IsAbs(path) {
			path = filepath.Join(in.SeccompRoot, path)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot load seccomp profile %q: %w", path, err)
		}
		profile, err := seccomp.Load(raw, s.Process.Capabilities.Bounding)
		if err != nil {
			return nil, fmt.Errorf("decoding seccomp profile failed: %w", err)
		}
		return profile, nil
	}
	return nil, nil
}

// MarshalBundle writes config.json of a bundle.
func MarshalBundle(s *specs.Spec, dir string) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}
