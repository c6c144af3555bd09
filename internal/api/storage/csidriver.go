// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func csiDriver() *api.Kind {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSIDriver", Resource: "csidrivers", Singular: "csidriver",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSIDriver], NewList: api.NewList[storagev1.CSIDriverList],
			Default: api.Default(defaultCSIDriver),
		}},
		Storage:             storagev1.SchemeGroupVersion,
		Prefix:              "/registry/csidrivers",
		ReturnDeletedObject: true,
		New:                 api.New[storagev1.CSIDriver], NewList: api.NewList[storagev1.CSIDriverList],
		Rules: api.For[*storagev1.CSIDriver]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) {
				if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
					d.Generation = old.Generation + 1
				}
			},
			Validate: func(d *storagev1.CSIDriver) field.ErrorList { return validateCSIDriver(&d.Spec) },
			ValidateUpdate: func(d, old *storagev1.CSIDriver) field.ErrorList {
				path := field.NewPath("spec")
				errs := validateCSIDriver(&d.Spec)
				// The first path is misspelt in what clients know.
				errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, path.Child("attachedRequired"))...)
				return append(errs, apivalidation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, path.Child("volumeLifecycleModes"))...)
			},
			Warnings: func(d, old *storagev1.CSIDriver) []string {
				unchanged := old != nil && apiequality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests)
				if unchanged || len(d.Spec.TokenRequests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil {
					return nil
				}
				return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Boolean("AttachRequired", doc["attachRequired"]),
				table.Boolean("PodInfoOnMount", doc["podInfoOnMount"]),
				table.Boolean("StorageCapacity", doc["storageCapacity"]),
				table.String("TokenRequests", doc["tokenRequests"]),
				table.Boolean("RequiresRepublish", doc["requiresRepublish"]),
				table.String("Modes", doc["volumeLifecycleModes"]),
				table.Age(),
			},
			Cells: csiDriverCells,
		}.Rules(),
	}
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	setDefault(&s.AttachRequired, true)
	setDefault(&s.PodInfoOnMount, false)
	setDefault(&s.StorageCapacity, false)
	setDefault(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	setDefault(&s.RequiresRepublish, false)
	setDefault(&s.SELinuxMount, false)
	setDefault(&s.PreventPodSchedulingIfMissing, false)
}

func csiDriverCells(d *storagev1.CSIDriver) []any {
	s := &d.Spec
	is := func(b *bool, absent bool) bool {
		if b == nil {
			return absent
		}
		return *b
	}
	modes, tokens := "<none>", "<unset>"
	if len(s.VolumeLifecycleModes) > 0 {
		var names []string
		for _, m := range s.VolumeLifecycleModes {
			names = append(names, string(m))
		}
		modes = strings.Join(names, ",")
	}
	if s.TokenRequests != nil {
		var audiences []string
		for _, t := range s.TokenRequests {
			audiences = append(audiences, t.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	return []any{d.Name, is(s.AttachRequired, true), is(s.PodInfoOnMount, false), is(s.StorageCapacity, false),
		tokens, is(s.RequiresRepublish, false), modes, table.Since(d.CreationTimestamp)}
}

func validateCSIDriver(s *storagev1.CSIDriverSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	for _, f := range []struct {
		name    string
		present bool
	}{
		{"attachedRequired", s.AttachRequired != nil}, {"podInfoOnMount", s.PodInfoOnMount != nil},
		{"storageCapacity", s.StorageCapacity != nil}, {"seLinuxMount", s.SELinuxMount != nil},
		{"preventPodSchedulingIfMissing", s.PreventPodSchedulingIfMissing != nil},
	} {
		if !f.present {
			errs = append(errs, field.Required(path.Child(f.name), ""))
		}
	}
	if s.FSGroupPolicy != nil {
		errs = append(errs, rule.OneOf(*s.FSGroupPolicy, path.Child("fsGroupPolicy"),
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	errs = append(errs, validateTokenRequests(s.TokenRequests, path.Child("tokenRequests"))...)
	modes := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}
	for _, m := range s.VolumeLifecycleModes {
		if !slices.Contains(modes, m) {
			errs = append(errs, field.NotSupported(path.Child("volumeLifecycleModes"), m, modes))
		}
	}
	if p := s.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < 10 {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *p, "must be greater than or equal to 10 seconds"))
	}
	if b := s.ServiceAccountTokenInSecrets; b != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *b, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateTokenRequests(requests []storagev1.TokenRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, r := range requests {
		if seen.Has(r.Audience) {
			errs = append(errs, field.Duplicate(path.Index(i).Child("audience"), r.Audience))
			continue
		}
		seen.Insert(r.Audience)
		seconds := r.ExpirationSeconds
		if seconds == nil {
			continue
		}
		where := path.Index(i).Child("expirationSeconds")
		if *seconds < 600 {
			errs = append(errs, field.Invalid(where, *seconds, "may not specify a duration less than 10 minutes"))
		}
		if *seconds > 1<<32 {
			errs = append(errs, field.Invalid(where, *seconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}
