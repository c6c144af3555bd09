// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// The fields of a pod that the downward API offers, to the environment and to
// volumes, sorted.
func envFieldPaths() []string {
	return []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
}

func volumeFieldPaths() []string {
	return []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
}

func resourceFieldPaths() []string {
	return []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"}
}

func validateEnv(env []corev1.EnvVar, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range env {
		v, p := &env[i], p.Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
		} else {
			errs = append(errs, rule.Messages(p.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name))...)
		}
		if v.ValueFrom != nil {
			errs = append(errs, validateEnvSource(v, p.Child("valueFrom"))...)
		}
	}
	return errs
}

func validateEnvSource(v *corev1.EnvVar, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	sources := 0
	if ref := v.ValueFrom.FieldRef; ref != nil {
		sources++
		errs = append(errs, validateFieldRef(ref, envFieldPaths(), p.Child("fieldRef"))...)
	}
	if ref := v.ValueFrom.ResourceFieldRef; ref != nil {
		sources++
		errs = append(errs, validateResourceFieldRef(ref, false, p.Child("resourceFieldRef"))...)
	}
	if ref := v.ValueFrom.ConfigMapKeyRef; ref != nil {
		sources++
		errs = append(errs, validateKeyRef(ref.Name, ref.Key, p.Child("configMapKeyRef"))...)
	}
	if ref := v.ValueFrom.SecretKeyRef; ref != nil {
		sources++
		errs = append(errs, validateKeyRef(ref.Name, ref.Key, p.Child("secretKeyRef"))...)
	}
	if ref := v.ValueFrom.FileKeyRef; ref != nil {
		sources++
		errs = append(errs, validateFileKeyRef(ref, p.Child("fileKeyRef"))...)
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case v.Value != "":
		errs = append(errs, field.Invalid(p, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateKeyRef(name, key string, p *field.Path) field.ErrorList {
	errs := rule.Messages(p.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		return append(errs, field.Required(p.Child("key"), ""))
	}
	return append(errs, rule.Messages(p.Child("key"), key, validation.IsConfigMapKey(key))...)
}

func validateFileKeyRef(ref *corev1.FileKeySelector, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.Key == "" {
		errs = append(errs, field.Required(p.Child("key"), ""))
	} else {
		errs = append(errs, rule.Messages(p.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))...)
	}
	if ref.VolumeName == "" {
		errs = append(errs, field.Required(p.Child("volumeName"), ""))
	} else {
		errs = append(errs, rule.Label(ref.VolumeName, p.Child("volumeName"))...)
	}
	if ref.Path == "" {
		return append(errs, field.Required(p.Child("path"), ""))
	}
	return append(errs, rule.NoBacksteps(ref.Path, p.Child("path"))...)
}

func validateEnvFrom(sources []corev1.EnvFromSource, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	named := func(name string, p *field.Path) {
		if name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
			return
		}
		errs = append(errs, rule.Messages(p.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, true))...)
	}
	for i, source := range sources {
		index := p.Index(i)
		if source.Prefix != "" {
			errs = append(errs, rule.Messages(index.Child("prefix"), source.Prefix, validation.IsRelaxedEnvVarName(source.Prefix))...)
		}
		if source.ConfigMapRef != nil {
			named(source.ConfigMapRef.Name, index.Child("configMapRef"))
		}
		if source.SecretRef != nil {
			named(source.SecretRef.Name, index.Child("secretRef"))
		}
		switch {
		case source.ConfigMapRef == nil && source.SecretRef == nil:
			errs = append(errs, field.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`"))
		case source.ConfigMapRef != nil && source.SecretRef != nil:
			errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

// validateFieldRef checks a reference to a field of the pod; supported lists
// the fields without subscript, sorted.
func validateFieldRef(ref *corev1.ObjectFieldSelector, supported []string, p *field.Path) field.ErrorList {
	if ref.APIVersion == "" {
		return field.ErrorList{field.Required(p.Child("apiVersion"), "")}
	}
	if ref.FieldPath == "" {
		return field.ErrorList{field.Required(p.Child("fieldPath"), "")}
	}
	path, err := podFieldLabel(ref.APIVersion, ref.FieldPath)
	if err != nil {
		return field.ErrorList{field.Invalid(p.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+err.Error())}
	}
	name, subscript, subscripted := splitSubscript(path)
	switch {
	case !subscripted && !slices.Contains(supported, path):
		return field.ErrorList{field.NotSupported(p.Child("fieldPath"), path, supported)}
	case !subscripted:
		return nil
	case name == "metadata.annotations":
		return rule.QualifiedName(strings.ToLower(subscript), p)
	}
	return rule.QualifiedName(subscript, p)
}

// podFieldLabel is the current name of a field that the downward API knew.
func podFieldLabel(version, label string) (string, error) {
	if version != "v1" {
		return "", fmt.Errorf("unsupported pod version: %s", version)
	}
	if name, _, ok := splitSubscript(label); ok {
		if name == "metadata.annotations" || name == "metadata.labels" {
			return label, nil
		}
		return "", fmt.Errorf("field label does not support subscript: %s", label)
	}
	switch label {
	case "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
		"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return label, nil
	case "spec.host": // what spec.nodeName was called before v1
		return "spec.nodeName", nil
	}
	return "", fmt.Errorf("field label not supported: %s", label)
}

// splitSubscript splits "name['subscript']".
func splitSubscript(path string) (name, subscript string, ok bool) {
	inner, ok := strings.CutSuffix(path, "']")
	if !ok {
		return path, "", false
	}
	name, subscript, ok = strings.Cut(inner, "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, subscript, true
}

func validateResourceFieldRef(ref *corev1.ResourceFieldSelector, inVolume bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	hugePages := strings.HasPrefix(ref.Resource, "requests.hugepages-") || strings.HasPrefix(ref.Resource, "limits.hugepages-")
	switch {
	case inVolume && ref.ContainerName == "":
		errs = append(errs, field.Required(p.Child("containerName"), ""))
	case ref.Resource == "":
		errs = append(errs, field.Required(p.Child("resource"), ""))
	case !hugePages && !slices.Contains(resourceFieldPaths(), ref.Resource):
		errs = append(errs, field.NotSupported(p.Child("resource"), ref.Resource, resourceFieldPaths()))
	}
	if ref.Divisor.IsZero() {
		return errs
	}
	sizes := []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
	allowed, listed, what := sizes, strings.Join(sizes, ", "), ""
	switch _, resource, _ := strings.Cut(ref.Resource, "."); {
	case hugePages:
		what = "hugepages"
	case resource == "cpu":
		allowed, listed, what = []string{"1m", "1"}, "1m and 1", "cpu"
	case resource == "memory":
		what = "memory"
	case resource == "ephemeral-storage":
		what = "local ephemeral storage"
	}
	if what != "" && !slices.Contains(allowed, ref.Divisor.String()) {
		errs = append(errs, field.Invalid(p.Child("divisor"), ref.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", listed, what)))
	}
	return errs
}
