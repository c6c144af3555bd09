// SPDX-License-Identifier: Apache-2.0

// Package volume has the rules of storage that pods, claims and persistent
// volumes share: the sources of volumes and the spec of a claim. Package core
// calls it, and so do groups that embed claims (StatefulSet) or volumes. It is
// pure: it knows no cluster and keeps no state.
package volume

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Choice collects the errors of a union at Path of which exactly one member
// must be set.
type Choice struct {
	Path   *field.Path
	Errors field.ErrorList

	chosen bool
}

// Member declares the member name; check judges it at its path, and only when
// it is the first one set.
func (c *Choice) Member(set bool, name string, check func(p *field.Path) field.ErrorList) {
	c.Misnamed(set, name, name, check)
}

// Misnamed is Member for the sources that the reference implementation reports
// under another name when they are set too much than when they are invalid.
func (c *Choice) Misnamed(set bool, extra, name string, check func(p *field.Path) field.ErrorList) {
	switch {
	case !set:
	case c.chosen:
		c.Errors = append(c.Errors, field.Forbidden(c.Path.Child(extra), "may not specify more than 1 volume type"))
	default:
		c.chosen = true
		c.Errors = append(c.Errors, check(c.Path.Child(name))...)
	}
}

// Done returns the errors, with one more when no member was set.
func (c *Choice) Done() field.ErrorList {
	if !c.chosen {
		c.Errors = append(c.Errors, field.Required(c.Path, "must specify a volume type"))
	}
	return c.Errors
}

// required returns an error for each named field that is empty; fields holds
// names and values in turn.
func required(p *field.Path, fields ...string) field.ErrorList {
	var errs field.ErrorList
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			errs = append(errs, field.Required(p.Child(fields[i]), ""))
		}
	}
	return errs
}
