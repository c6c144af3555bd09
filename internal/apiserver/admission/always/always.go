// SPDX-License-Identifier: Apache-2.0

// Package always is the admission plug-ins that ask for nothing: AlwaysAdmit
// lets every request through and AlwaysDeny none.
//
// The API server's admission chain calls them.
package always

import (
	"context"
	"errors"

	"kaji/internal/apiserver/admission"
)

// The names that the plug-ins are enabled by.
const (
	AdmitName = "AlwaysAdmit"
	DenyName  = "AlwaysDeny"
)

// Admit is a plug-in that does nothing; its value is the plug-in's name.
type Admit string

var _ admission.Plugin = Admit("")

// Name implements admission.Plugin.
func (a Admit) Name() string { return string(a) }

// Handles implements admission.Plugin.
func (Admit) Handles(admission.Operation) bool { return false }

// Deny is the admission plug-in AlwaysDeny.
type Deny struct{}

var (
	_ admission.Mutator   = Deny{}
	_ admission.Validator = Deny{}
)

// Name implements admission.Plugin.
func (Deny) Name() string { return DenyName }

// Handles implements admission.Plugin.
func (Deny) Handles(admission.Operation) bool { return true }

// Mutate implements admission.Mutator: no other plug-in works on what is refused.
func (d Deny) Mutate(ctx context.Context, a *admission.Attributes) error { return d.Validate(ctx, a) }

// Validate implements admission.Validator.
func (Deny) Validate(_ context.Context, a *admission.Attributes) error {
	return a.Forbidden(errors.New("admission control is denying all modifications"))
}
