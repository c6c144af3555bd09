// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"math"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
	"kaji/internal/api/volume"
)

const (
	maxAttachmentMetadata = 256 << 10
	maxVolumeErrorMessage = 1024
)

func volumeAttachment() *api.Kind {
	spec := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	attacher := table.String("Attacher", spec["attacher"])
	attacher.Format = "name"
	return &api.Kind{
		Group: storagev1.GroupName, Name: "VolumeAttachment", Resource: "volumeattachments", Singular: "volumeattachment",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.VolumeAttachment], NewList: api.NewList[storagev1.VolumeAttachmentList],
			Default: api.Default(func(a *storagev1.VolumeAttachment) {
				if s := a.Spec.Source.InlineVolumeSpec; s != nil {
					rule.RoundUp(s.Capacity)
					volume.DefaultPersistentSource(&s.PersistentVolumeSource)
				}
			}),
		}},
		Storage:             storagev1.SchemeGroupVersion,
		Prefix:              "/registry/volumeattachments",
		ReturnDeletedObject: true,
		New:                 api.New[storagev1.VolumeAttachment], NewList: api.NewList[storagev1.VolumeAttachmentList],
		Rules: api.For[*storagev1.VolumeAttachment]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, a *storagev1.VolumeAttachment) {
				a.Status = storagev1.VolumeAttachmentStatus{}
			},
			PrepareForUpdate: func(_ context.Context, a, old *storagev1.VolumeAttachment) {
				a.Status = old.Status
			},
			Validate: func(a *storagev1.VolumeAttachment) field.ErrorList {
				return validateAttachment(a, validateAttacher)
			},
			ValidateUpdate: validateAttachmentUpdate,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				attacher,
				table.String("PV", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
				table.String("Node", spec["nodeName"]),
				table.Boolean("Attached", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
				table.Age(),
			},
			Cells: func(a *storagev1.VolumeAttachment) []any {
				name := ""
				if a.Spec.Source.PersistentVolumeName != nil {
					name = *a.Spec.Source.PersistentVolumeName
				}
				return []any{a.Name, a.Spec.Attacher, name, a.Spec.NodeName, a.Status.Attached, table.Since(a.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, a, old *storagev1.VolumeAttachment) {
				a.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: api.Update(validateAttachmentUpdate),
			ResetFields:    []string{"metadata", "spec"},
		},
	}
}

func validateAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	return append(validateAttachment(a, validateDriverName), rule.Unchanged(a.Spec, old.Spec, field.NewPath("spec"))...)
}

// validateAttachment judges an attachment; driver words what is wrong with the
// attacher, which differs between new and changed ones.
func validateAttachment(a *storagev1.VolumeAttachment, driver func(string, *field.Path) field.ErrorList) field.ErrorList {
	path := field.NewPath("spec")
	errs := driver(a.Spec.Attacher, path.Child("attacher"))
	source, where := &a.Spec.Source, path.Child("source")
	switch name, inline := source.PersistentVolumeName, source.InlineVolumeSpec; {
	case inline == nil && name == nil:
		errs = append(errs, field.Required(where, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case inline != nil && name != nil:
		errs = append(errs, field.Forbidden(where, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && *name == "":
		errs = append(errs, field.Required(where.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	case inline != nil:
		errs = append(errs, volume.ValidatePersistentSpec(inline, where.Child("inlineVolumeSpec"), volume.PersistentOptions{Inline: true})...)
	}
	errs = append(errs, rule.Subdomain(a.Spec.NodeName, path.Child("nodeName"))...)
	errs = append(errs, validateAttachmentStatus(&a.Status, field.NewPath("status"))...)
	if name := source.PersistentVolumeName; name != nil {
		errs = append(errs, rule.Subdomain(*name, field.NewPath("spec.source.persistentVolumeName"))...)
	}
	return errs
}

// validateDriverName checks the name of a CSI driver, in which letters may be
// large.
func validateDriverName(name string, path *field.Path) field.ErrorList {
	return driverNameErrors(name, path, validation.IsDNS1123Subdomain(strings.ToLower(name)))
}

// validateAttacher is validateDriverName for new attachments.
func validateAttacher(name string, path *field.Path) field.ErrorList {
	if len(name) > 63 {
		return append(field.ErrorList{field.TooLongCharacters(path, "", 63)}, rule.Messages(path, name, content.IsDNS1123SubdomainCaseless(name))...)
	}
	return driverNameErrors(name, path, content.IsDNS1123SubdomainCaseless(name))
}

func driverNameErrors(name string, path *field.Path, messages []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > 63 {
		errs = append(errs, field.TooLong(path, "", 63))
	}
	return append(errs, rule.Messages(path, name, messages)...)
}

func validateAttachmentStatus(status *storagev1.VolumeAttachmentStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if size(status.AttachmentMetadata) > maxAttachmentMetadata {
		errs = append(errs, field.TooLong(path.Child("attachmentMetadata"), "", maxAttachmentMetadata))
	}
	errs = append(errs, validateVolumeError(status.AttachError, path.Child("attachError"))...)
	return append(errs, validateVolumeError(status.DetachError, path.Child("detachError"))...)
}

func validateVolumeError(e *storagev1.VolumeError, path *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorMessage {
		// The limit told is that of the metadata, as clients know it.
		errs = append(errs, field.TooLong(path.Child("message"), "", maxAttachmentMetadata))
	}
	if code := e.ErrorCode; code != nil && *code < 0 {
		errs = append(errs, field.Invalid(path.Child("errorCode"), *code, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
