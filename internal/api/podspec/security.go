// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

func validateUser(id *int64, p *field.Path) field.ErrorList {
	if id == nil {
		return nil
	}
	return rule.Messages(p, *id, validation.IsValidUserID(*id))
}

func validateGroup(id *int64, p *field.Path) field.ErrorList {
	if id == nil {
		return nil
	}
	return rule.Messages(p, *id, validation.IsValidGroupID(*id))
}

// validateSecurityContext checks the security context of the pod.
func (c *checker) validateSecurityContext(p *field.Path) field.ErrorList {
	sc := c.spec.SecurityContext
	if sc == nil {
		return nil
	}
	errs := validateGroup(sc.FSGroup, p.Child("fsGroup"))
	errs = append(errs, validateUser(sc.RunAsUser, p.Child("runAsUser"))...)
	errs = append(errs, validateGroup(sc.RunAsGroup, p.Child("runAsGroup"))...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, validateGroup(&sc.SupplementalGroups[i], p.Child("supplementalGroups").Index(i))...)
	}
	if isTrue(c.spec.ShareProcessNamespace) && c.spec.HostPID {
		errs = append(errs, field.Invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	errs = append(errs, c.validateSysctls(sc.Sysctls, p.Child("sysctls"))...)
	if sc.FSGroupChangePolicy != nil {
		errs = append(errs, rule.OneOf(*sc.FSGroupChangePolicy, p.Child("fsGroupChangePolicy"), corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)...)
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, p.Child("seccompProfile"))...)
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, p.Child("windowsOptions"))...)
	errs = append(errs, validateAppArmor(sc.AppArmorProfile, p.Child("appArmorProfile"))...)
	if sc.SupplementalGroupsPolicy != nil {
		errs = append(errs, rule.OneOf(*sc.SupplementalGroupsPolicy, p.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if sc.SELinuxChangePolicy != nil {
		errs = append(errs, rule.OneOf(*sc.SELinuxChangePolicy, p.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyRecursive, corev1.SELinuxChangePolicyMountOption)...)
	}
	return errs
}

var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func (c *checker) validateSysctls(sysctls []corev1.Sysctl, p *field.Path) field.ErrorList {
	const maxLength = 253
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, s := range sysctls {
		p := p.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(p, ""))
		case len(s.Name) > maxLength || !sysctlName.MatchString(s.Name):
			errs = append(errs, field.Invalid(p, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxLength, sysctlName)))
		case seen.Has(s.Name):
			errs = append(errs, field.Duplicate(p, s.Name))
		}
		if why := hostSysctl(c.spec, s.Name); why != "" && !c.options.HostSysctls {
			errs = append(errs, field.Invalid(p, s.Name, why))
		}
		seen.Insert(s.Name)
	}
	return errs
}

func validateContainerSecurity(sc *corev1.SecurityContext, hostUsers bool, p *field.Path) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := validateUser(sc.RunAsUser, p.Child("runAsUser"))
	errs = append(errs, validateGroup(sc.RunAsGroup, p.Child("runAsGroup"))...)
	if mount := sc.ProcMount; mount != nil {
		errs = append(errs, rule.OneOf(*mount, p.Child("procMount"), corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if hostUsers && *mount == corev1.UnmaskedProcMount {
			errs = append(errs, field.Invalid(p.Child("procMount"), *mount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, p.Child("seccompProfile"))...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if isTrue(sc.Privileged) {
			errs = append(errs, field.Invalid(p, badvalue.Of(sc), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(p, badvalue.Of(sc), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	errs = append(errs, validateWindowsOptions(sc.WindowsOptions, p.Child("windowsOptions"))...)
	return append(errs, validateAppArmor(sc.AppArmorProfile, p.Child("appArmorProfile"))...)
}

func validateSeccomp(s *corev1.SeccompProfile, p *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if s.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, rule.OneOfRequired(s.Type, p.Child("type"),
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	local := p.Child("localhostProfile")
	switch {
	case s.Type != corev1.SeccompProfileTypeLocalhost:
		if s.LocalhostProfile != nil {
			errs = append(errs, field.Invalid(local, badvalue.Of(s), "can only be set when seccomp type is Localhost"))
		}
	case s.LocalhostProfile == nil:
		errs = append(errs, field.Required(local, "must be set when seccomp type is Localhost"))
	default:
		errs = append(errs, rule.Descending(*s.LocalhostProfile, local)...)
	}
	return errs
}

func validateAppArmor(s *corev1.AppArmorProfile, p *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	local := p.Child("localhostProfile")
	switch s.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		const maxPath = 4095
		var errs field.ErrorList
		if s.LocalhostProfile == nil {
			return field.ErrorList{field.Required(local, "must be set when AppArmor type is Localhost")}
		}
		if trimmed := strings.TrimSpace(*s.LocalhostProfile); trimmed != *s.LocalhostProfile {
			errs = append(errs, field.Invalid(local, *s.LocalhostProfile, "must not be padded with whitespace"))
		} else if trimmed == "" {
			errs = append(errs, field.Required(local, "must be set when AppArmor type is Localhost"))
		}
		if len(*s.LocalhostProfile) > maxPath {
			errs = append(errs, field.TooLong(local, "", maxPath))
		}
		return errs
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if s.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(local, *s.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
		return nil
	case "":
		return field.ErrorList{field.Required(p.Child("type"), "type is required when appArmorProfile is set")}
	}
	return field.ErrorList{field.NotSupported(p.Child("type"), s.Type, []corev1.AppArmorProfileType{
		corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined})}
}
