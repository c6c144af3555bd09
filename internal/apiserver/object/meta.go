// SPDX-License-Identifier: Apache-2.0

package object

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/warning"

	"kaji/internal/api"
)

const (
	maxNameLength    = 63
	randomLength     = 5
	maxGeneratedName = maxNameLength - randomLength
)

// generateName appends a random suffix to base, which it cuts where needed.
func generateName(base string) string {
	if len(base) > maxGeneratedName {
		base = base[:maxGeneratedName]
	}
	return base + utilrand.String(randomLength)
}

// wipe clears what only the system sets.
func wipe(obj api.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetUID("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

// Fill sets what the system sets on a new object.
func Fill(obj api.Object) {
	obj.SetCreationTimestamp(metav1.Now())
	obj.SetUID(uuid.NewUUID())
}

// MatchNamespace gives the object the request's namespace, or fails when it
// names another.
func MatchNamespace(obj api.Object, namespace string) error {
	switch obj.GetNamespace() {
	case namespace:
		return nil
	case "":
		obj.SetNamespace(namespace)
		return nil
	}
	if namespace == "" {
		obj.SetNamespace("")
		return nil
	}
	return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
}

// MatchName fails when the object's name or namespace differs from the URL's.
func MatchName(obj api.Object, namespace, name string) error {
	if obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	}
	if obj.GetName() != name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), name))
	}
	if namespace != "" && obj.GetNamespace() != "" && obj.GetNamespace() != namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the request (%s)", obj.GetNamespace(), namespace))
	}
	return nil
}

const (
	duplicateOwners      = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
	duplicateOwnersAfter = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
)

// dedupOwners drops equal owner references, with a warning.
func dedupOwners(ctx context.Context, obj api.Object, format string) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	seen := map[types.UID]bool{}
	var kept []metav1.OwnerReference
	var duplicates []string
	for _, ref := range refs {
		if seen[ref.UID] {
			duplicate := false
			for i := range kept {
				if kept[i].UID == ref.UID && reflect.DeepEqual(kept[i], ref) {
					duplicate = true
					break
				}
			}
			if duplicate {
				duplicates = append(duplicates, string(ref.UID))
				continue
			}
		}
		seen[ref.UID] = true
		kept = append(kept, ref)
	}
	if len(duplicates) > 0 {
		warning.AddWarning(ctx, "", fmt.Sprintf(format, strings.Join(duplicates, ", ")))
		obj.SetOwnerReferences(kept)
	}
}

// Manager returns the name a write is recorded under in managedFields: the one
// given, or what stands before the first slash of the user agent, or unknown.
func Manager(manager, userAgent string) string {
	if manager != "" {
		return manager
	}
	name, _, _ := strings.Cut(userAgent, "/")
	var b strings.Builder
	for _, r := range name {
		if !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > metavalidation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(r)
	}
	return cmp.Or(b.String(), "unknown")
}
