// SPDX-License-Identifier: Apache-2.0

// Package denyserviceexternalips is the admission plug-in DenyServiceExternalIPs:
// no Service gets external addresses it did not have, as whoever sets them can
// draw other people's traffic to himself (CVE-2020-8554).
//
// The API server's admission chain calls it.
package denyserviceexternalips

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "DenyServiceExternalIPs"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Validator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if !a.Is("", "services", "") {
		return nil
	}
	service, ok := a.Object.(*corev1.Service)
	if !ok {
		return nil
	}
	var had []string
	if old, ok := a.Old.(*corev1.Service); ok {
		had = old.Spec.ExternalIPs
	}
	for _, ip := range service.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return a.Forbidden(errors.New("Use of external IPs is denied by admission control"))
		}
	}
	return nil
}
