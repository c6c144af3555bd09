// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// validateOS checks that a pod asks only for what its operating system has.
func validateOS(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	if spec.OS == nil {
		return nil
	}
	switch spec.OS.Name {
	case "":
		return field.ErrorList{field.Required(p.Child("os", "name"), "")}
	case corev1.Linux:
		return validateLinux(spec, p)
	case corev1.Windows:
		return validateWindows(spec, p)
	}
	return field.ErrorList{field.NotSupported(p.Child("os"), spec.OS.Name, []corev1.OSName{corev1.Linux, corev1.Windows})}
}

func validateLinux(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	const message = "windows options cannot be set for a linux pod"
	var errs field.ErrorList
	if spec.SecurityContext != nil && spec.SecurityContext.WindowsOptions != nil {
		errs = append(errs, field.Forbidden(p.Child("securityContext", "windowsOptions"), message))
	}
	visit(spec, p, func(c *corev1.Container, p *field.Path) {
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(p.Child("securityContext", "windowsOptions"), message))
		}
	})
	return errs
}

func validateWindows(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, p *field.Path, name string) {
		if set {
			errs = append(errs, field.Forbidden(p.Child(name), "cannot be set for a windows pod"))
		}
	}
	if sc := spec.SecurityContext; sc != nil {
		p := p.Child("securityContext")
		forbid(sc.AppArmorProfile != nil, p, "appArmorProfile")
		forbid(sc.SELinuxOptions != nil, p, "seLinuxOptions")
		forbid(sc.SeccompProfile != nil, p, "seccompProfile")
		forbid(sc.FSGroup != nil, p, "fsGroup")
		forbid(sc.FSGroupChangePolicy != nil, p, "fsGroupChangePolicy")
		forbid(len(sc.Sysctls) > 0, p, "sysctls")
		forbid(sc.RunAsUser != nil, p, "runAsUser")
		forbid(sc.RunAsGroup != nil, p, "runAsGroup")
		forbid(sc.SupplementalGroups != nil, p, "supplementalGroups")
		forbid(sc.SupplementalGroupsPolicy != nil, p, "supplementalGroupsPolicy")
		forbid(sc.SELinuxChangePolicy != nil, p, "seLinuxChangePolicy")
	}
	forbid(spec.HostUsers != nil, p, "hostUsers")
	forbid(spec.HostPID, p, "hostPID")
	forbid(spec.HostIPC, p, "hostIPC")
	forbid(spec.ShareProcessNamespace != nil, p, "shareProcessNamespace")
	visit(spec, p, func(c *corev1.Container, p *field.Path) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		p = p.Child("securityContext")
		forbid(sc.AppArmorProfile != nil, p, "appArmorProfile")
		forbid(sc.SELinuxOptions != nil, p, "seLinuxOptions")
		forbid(sc.SeccompProfile != nil, p, "seccompProfile")
		forbid(sc.Capabilities != nil, p, "capabilities")
		forbid(sc.ReadOnlyRootFilesystem != nil, p, "readOnlyRootFilesystem")
		forbid(sc.Privileged != nil, p, "privileged")
		forbid(sc.AllowPrivilegeEscalation != nil, p, "allowPrivilegeEscalation")
		forbid(sc.ProcMount != nil, p, "procMount")
		forbid(sc.RunAsUser != nil, p, "runAsUser")
		forbid(sc.RunAsGroup != nil, p, "runAsGroup")
	})
	return errs
}

// validateHostProcess checks that Windows containers that run on the host are
// all of a pod's containers, and on the host's network.
func validateHostProcess(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	var pod *bool
	if spec.SecurityContext != nil && spec.SecurityContext.WindowsOptions != nil {
		pod = spec.SecurityContext.WindowsOptions.HostProcess
	}
	containers, onHost := 0, 0
	visit(spec, p, func(c *corev1.Container, p *field.Path) {
		containers++
		var own *bool
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			own = c.SecurityContext.WindowsOptions.HostProcess
		}
		if pod != nil && own != nil && *pod != *own {
			errs = append(errs, field.Invalid(p.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod)))
		}
		if isTrue(own) || own == nil && isTrue(pod) {
			onHost++
		}
	})
	if onHost == 0 {
		return errs
	}
	if onHost != containers {
		errs = append(errs, field.Invalid(p, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !spec.HostNetwork {
		errs = append(errs, field.Invalid(p.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

// The forms of Windows accounts: a NetBIOS or a DNS domain, and a user.
var (
	netBIOSDomain  = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	dnsDomain      = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	controlChars   = regexp.MustCompile(`[[:cntrl:]]+`)
	badUserChars   = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	onlyDotsSpaces = regexp.MustCompile(`^[\. ]+$`)
)

func validateWindowsOptions(o *corev1.WindowsSecurityContextOptions, p *field.Path) field.ErrorList {
	if o == nil {
		return nil
	}
	var errs field.ErrorList
	if name := o.GMSACredentialSpecName; name != nil {
		errs = append(errs, rule.Messages(p.Child("gmsaCredentialSpecName"), *name, validation.IsDNS1123Subdomain(*name))...)
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		switch p := p.Child("gmsaCredentialSpec"); {
		case *spec == "":
			errs = append(errs, field.Invalid(p, *spec, "gmsaCredentialSpec cannot be an empty string"))
		case len(*spec) > 64<<10:
			errs = append(errs, field.Invalid(p, *spec, "gmsaCredentialSpec size must be under 64 KiB"))
		}
	}
	if o.RunAsUserName != nil {
		errs = append(errs, validateUserName(*o.RunAsUserName, p.Child("runAsUserName"))...)
	}
	return errs
}

func validateUserName(name string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(bad bool, message string) {
		if bad {
			errs = append(errs, field.Invalid(p, name, "runAsUserName"+message))
		}
	}
	switch {
	case name == "":
		refuse(true, " cannot be an empty string")
		return errs
	case controlChars.MatchString(name):
		refuse(true, " cannot contain control characters")
		return errs
	case strings.Count(name, `\`) > 1:
		refuse(true, " cannot contain more than one backslash")
		return errs
	}
	domain, user, qualified := strings.Cut(name, `\`)
	if !qualified {
		domain, user = "", name
	}
	refuse(len(domain) >= 256, "'s Domain length must be under 256 characters")
	refuse(qualified && !netBIOSDomain.MatchString(domain) && !dnsDomain.MatchString(domain), "'s Domain doesn't match the NetBios nor the DNS format")
	refuse(user == "", "'s User cannot be empty")
	refuse(len(user) > 104, "'s User length must not be longer than 104 characters")
	refuse(onlyDotsSpaces.MatchString(user), "'s User cannot contain only periods or spaces")
	refuse(badUserChars.MatchString(user), `'s User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	return errs
}
