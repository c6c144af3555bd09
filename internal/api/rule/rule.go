// SPDX-License-Identifier: Apache-2.0

// Package rule has the checks of single values that the kinds of several groups
// share: names, ports, paths, quantities, resource names and node selectors.
// Only the packages of kinds call it. The functions are pure: they neither
// change what they look at nor know which kind it stands in.
package rule

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Messages turns the messages of a check of value into errors at path.
func Messages(p *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(p, value, m))
	}
	return errs
}

// Frozen is the error for a field that may not change, where the reference
// checks it by its declared rules: they do not show the value.
func Frozen(p *field.Path) *field.Error {
	return field.Invalid(p, nil, "field is immutable").WithOrigin("immutable")
}

// Unchanged returns the error of Frozen if value differs from old.
func Unchanged(value, old any, p *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{Frozen(p)}
}

// Label requires an RFC 1123 label.
func Label(value string, p *field.Path) field.ErrorList {
	return Messages(p, value, validation.IsDNS1123Label(value)).WithOrigin("format=dns-label")
}

// Subdomain requires an RFC 1123 subdomain.
func Subdomain(value string, p *field.Path) field.ErrorList {
	return Messages(p, value, validation.IsDNS1123Subdomain(value))
}

// QualifiedName requires a name with an optional DNS prefix, as of label keys.
func QualifiedName(value string, p *field.Path) field.ErrorList {
	return Messages(p, value, validation.IsQualifiedName(value)).WithOrigin("format=qualified-name")
}

// Port requires a port number or the name of a port.
func Port(port intstr.IntOrString, p *field.Path) field.ErrorList {
	if port.Type == intstr.Int {
		return Messages(p, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	}
	return Messages(p, port.StrVal, validation.IsValidPortName(port.StrVal))
}

// OneOf requires a supported value; the error lists the supported ones sorted.
func OneOf[T ~string](value T, p *field.Path, supported ...T) field.ErrorList {
	if slices.Contains(supported, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(p, value, sorted(supported))}
}

// OneOfRequired is OneOf for a field that may not be empty; the error lists the
// supported values in the order given.
func OneOfRequired[T ~string](value T, p *field.Path, supported ...T) field.ErrorList {
	switch {
	case value == "":
		return field.ErrorList{field.Required(p, "")}
	case slices.Contains(supported, value):
		return nil
	}
	return field.ErrorList{field.NotSupported(p, value, supported)}
}

func sorted[T cmp.Ordered](values []T) []T {
	out := slices.Clone(values)
	slices.Sort(out)
	return out
}

// SortedKeys returns the keys of m in order, so that errors come in order.
func SortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

// NoBacksteps refuses a path with an element "..".
func NoBacksteps(value string, p *field.Path) field.ErrorList {
	if slices.Contains(strings.Split(value, "/"), "..") {
		return field.ErrorList{field.Invalid(p, value, "must not contain '..'")}
	}
	return nil
}

// Descending requires a relative path that stays below where it starts.
func Descending(value string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if path.IsAbs(value) {
		errs = append(errs, field.Invalid(p, value, "must be a relative path"))
	}
	return append(errs, NoBacksteps(value, p)...)
}

// NonReserved is Descending without names that begin with "..", which the
// atomic writer of volumes keeps for itself.
func NonReserved(value string, p *field.Path) field.ErrorList {
	errs := Descending(value, p)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		errs = append(errs, field.Invalid(p, value, "must not start with '..'"))
	}
	return errs
}

// NonSpecialIP refuses addresses that no endpoint can have: unspecified,
// loopback and link-local ones.
func NonSpecialIP(value string, p *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(value)
	if ip == nil {
		return field.ErrorList{field.Invalid(p, value, "must be a valid IP address").WithOrigin("format=ip-sloppy")}
	}
	var errs field.ErrorList
	refuse := func(special bool, message string) {
		if special {
			errs = append(errs, field.Invalid(p, value, message).WithOrigin("format=non-special-ip"))
		}
	}
	refuse(ip.IsUnspecified(), "may not be unspecified ("+value+")")
	refuse(ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	refuse(ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	refuse(ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	return errs
}
