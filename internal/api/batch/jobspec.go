// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"

	"kaji/internal/api/podspec"
)

// Limits of jobs, so that their status stays of bounded size.
const (
	maxIndexedParallelism  = 100_000
	maxFailedIndexes       = 100_000
	highCompletions        = 100_000
	maxParallelismWhenHigh = 10_000
	maxFailedWhenHigh      = 10_000
	maxFailureRules        = 20
	maxExitCodes           = 255
	maxConditionPatterns   = 20
	maxManagedByLength     = 63
	maxSuccessRules        = 20
	maxSuccessIndexes      = 64 * 1024
)

func validateJob(j, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	if old == nil {
		errs = validateGeneratedSelector(j)
	}
	errs = append(errs, validateJobSpec(&j.Spec, oldSpec(old), field.NewPath("spec"))...)
	if n := deref(j.Spec.Completions); indexed(&j.Spec) && n > 0 {
		if longest := fmt.Sprintf("%s-%d", j.Name, n-1); len(validation.IsDNS1123Label(longest)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, fmt.Sprintf("will not able to create pod with invalid DNS label: %s", longest)))
		}
	}
	return errs
}

func oldSpec(old *batchv1.Job) *batchv1.JobSpec {
	if old == nil {
		return nil
	}
	return &old.Spec
}

// validateGeneratedSelector checks that a selector that is not the user's own
// selects this job's pods.
func validateGeneratedSelector(j *batchv1.Job) field.ErrorList {
	if deref(j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	want := labels.Set{
		legacyUIDLabel: string(j.UID), legacyNameLabel: j.Name,
		batchv1.ControllerUidLabel: string(j.UID), batchv1.JobNameLabel: j.Name,
	}
	for _, key := range []string{legacyUIDLabel, legacyNameLabel, batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		errs = append(errs, validateLabel(&j.Spec.Template.ObjectMeta, key, want[key], field.NewPath("spec", "template", "metadata"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(want) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func validateLabel(meta *metav1.ObjectMeta, key, want string, path *field.Path) field.ErrorList {
	actual, found := meta.Labels[key]
	switch {
	case !found:
		return field.ErrorList{field.Required(path.Child("labels").Key(key), fmt.Sprintf("must be '%s'", want))}
	case actual != want:
		return field.ErrorList{field.Invalid(path.Child("labels").Key(key), meta.Labels, fmt.Sprintf("must be '%s'", want))}
	}
	return nil
}

func validateJobSpec(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := validateAnyJobSpec(spec, old, path)
	if spec.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		opts := metavalidation.LabelSelectorValidationOptions{
			AllowInvalidLabelValueInSelector: old != nil && metavalidation.LabelSelectorHasInvalidLabelValue(old.Selector),
		}
		errs = append(errs, metavalidation.ValidateLabelSelector(spec.Selector, opts, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// validateJobTemplate checks the job template of a CronJob.
func validateJobTemplate(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := validateAnyJobSpec(spec, old, path)
	if spec.Selector != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, "`selector` will be auto-generated"))
	}
	if deref(spec.ManualSelector) {
		err := field.NotSupported(path.Child("manualSelector"), "", []string{"nil", "false"})
		err.BadValue = true
		errs = append(errs, err)
	}
	return errs
}

func nonNegative[T int32 | int64](value *T, path *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(int64(*value), path)
}

// validateAnyJobSpec checks what holds for jobs and for templates of jobs.
func validateAnyJobSpec(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := nonNegative(spec.Parallelism, path.Child("parallelism"))
	errs = append(errs, nonNegative(spec.Completions, path.Child("completions"))...)
	errs = append(errs, nonNegative(spec.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, nonNegative(spec.BackoffLimit, path.Child("backoffLimit"))...)
	errs = append(errs, nonNegative(spec.TTLSecondsAfterFinished, path.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, nonNegative(spec.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, nonNegative(spec.MaxFailedIndexes, path.Child("maxFailedIndexes"))...)
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if by := spec.ManagedBy; by != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(path.Child("managedBy"), *by)...)
		if len(*by) > maxManagedByLength {
			errs = append(errs, field.TooLong(path.Child("managedBy"), "", maxManagedByLength))
		}
	}
	errs = append(errs, validateCompletionMode(spec, path)...)
	if spec.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(spec, path.Child("podFailurePolicy"))...)
	}
	if spec.SuccessPolicy != nil {
		if indexed(spec) {
			errs = append(errs, validateSuccessPolicy(spec, path.Child("successPolicy"))...)
		} else {
			errs = append(errs, field.Invalid(path.Child("successPolicy"), badvalue.Of(spec.SuccessPolicy), "requires indexed completion mode"))
		}
	}
	errs = append(errs, validateReplacement(spec, path.Child("podReplacementPolicy"))...)
	var oldTemplate *corev1.PodTemplateSpec
	if old != nil {
		oldTemplate = &old.Template
	}
	errs = append(errs, podspec.ValidateTemplate(&spec.Template, oldTemplate, path.Child("template"))...)
	return append(errs, validateRestartPolicy(spec, path.Child("template", "spec", "restartPolicy"))...)
}

func validateRestartPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	switch policy := spec.Template.Spec.RestartPolicy; {
	case policy == corev1.RestartPolicyAlways || policy == "":
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		return field.ErrorList{field.NotSupported(path, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	case spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever:
		return field.ErrorList{field.Invalid(path, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
	}
	return nil
}

func validateCompletionMode(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	const byIndex, plain = batchv1.IndexedCompletion, batchv1.NonIndexedCompletion
	var errs field.ErrorList
	invalid := func(name string, value *int32, format string, args ...any) {
		errs = append(errs, field.Invalid(path.Child(name), *value, fmt.Sprintf(format, args...)))
	}
	mode := plain
	if spec.CompletionMode != nil {
		mode = *spec.CompletionMode
	}
	switch mode {
	case byIndex:
	case plain:
		if spec.BackoffLimitPerIndex != nil {
			invalid("backoffLimitPerIndex", spec.BackoffLimitPerIndex, "requires indexed completion mode")
		}
		if spec.MaxFailedIndexes != nil {
			invalid("maxFailedIndexes", spec.MaxFailedIndexes, "requires indexed completion mode")
		}
		return errs
	default:
		return append(errs, field.NotSupported(path.Child("completionMode"), mode, []batchv1.CompletionMode{plain, byIndex}))
	}
	if spec.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), fmt.Sprintf("when completion mode is %s", byIndex)))
	}
	if deref(spec.Parallelism) > maxIndexedParallelism {
		invalid("parallelism", spec.Parallelism, "must be less than or equal to %d when completion mode is %s", maxIndexedParallelism, byIndex)
	}
	if spec.Completions != nil && spec.MaxFailedIndexes != nil && *spec.MaxFailedIndexes > *spec.Completions {
		invalid("maxFailedIndexes", spec.MaxFailedIndexes, "must be less than or equal to completions")
	}
	if deref(spec.MaxFailedIndexes) > maxFailedIndexes {
		invalid("maxFailedIndexes", spec.MaxFailedIndexes, "must be less than or equal to %d", maxFailedIndexes)
	}
	if deref(spec.Completions) <= highCompletions || spec.BackoffLimitPerIndex == nil {
		return errs
	}
	const bounded = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if spec.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", highCompletions)))
	}
	if deref(spec.Parallelism) > maxParallelismWhenHigh {
		invalid("parallelism", spec.Parallelism, bounded, maxParallelismWhenHigh, highCompletions)
	}
	if deref(spec.MaxFailedIndexes) > maxFailedWhenHigh {
		invalid("maxFailedIndexes", spec.MaxFailedIndexes, bounded, maxFailedWhenHigh, highCompletions)
	}
	return errs
}

func validateReplacement(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	supported := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
	if spec.PodFailurePolicy != nil {
		supported = supported[:1]
	}
	if policy := spec.PodReplacementPolicy; policy != nil && !slices.Contains(supported, *policy) {
		return field.ErrorList{field.NotSupported(path, *policy, supported)}
	}
	return nil
}

func validateFailurePolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules := path.Child("rules")
	if n := len(spec.PodFailurePolicy.Rules); n > maxFailureRules {
		errs = append(errs, field.TooMany(rules, n, maxFailureRules))
	}
	containers := sets.New[string]()
	for _, c := range spec.Template.Spec.Containers {
		containers.Insert(c.Name)
	}
	for _, c := range spec.Template.Spec.InitContainers {
		containers.Insert(c.Name)
	}
	for i := range spec.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(spec, &spec.PodFailurePolicy.Rules[i], rules.Index(i), containers)...)
	}
	return errs
}

func validateFailureRule(spec *batchv1.JobSpec, rule *batchv1.PodFailurePolicyRule, path *field.Path, containers sets.Set[string]) field.ErrorList {
	actions := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}
	var errs field.ErrorList
	switch action := path.Child("action"); {
	case rule.Action == "":
		errs = append(errs, field.Required(action, fmt.Sprintf("valid values: %q", actions)))
	case rule.Action == batchv1.PodFailurePolicyActionFailIndex:
		if spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(action, rule.Action, "requires the backoffLimitPerIndex to be set"))
		}
	case !slices.Contains(actions, rule.Action):
		errs = append(errs, field.NotSupported(action, rule.Action, actions))
	}
	if rule.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(rule.OnExitCodes, path.Child("onExitCodes"), containers)...)
	}
	errs = append(errs, validateConditionPatterns(rule.OnPodConditions, path.Child("onPodConditions"))...)
	switch conditions := len(rule.OnPodConditions) > 0; {
	case rule.OnExitCodes != nil && conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case rule.OnExitCodes == nil && !conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validateConditionPatterns(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, path *field.Path) field.ErrorList {
	supported := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
	var errs field.ErrorList
	if n := len(patterns); n > maxConditionPatterns {
		errs = append(errs, field.TooMany(path, n, maxConditionPatterns))
	}
	for i, p := range patterns {
		for _, msg := range validation.IsQualifiedName(string(p.Type)) {
			errs = append(errs, field.Invalid(path.Index(i).Child("type"), string(p.Type), msg))
		}
		switch status := path.Index(i).Child("status"); {
		case p.Status == "":
			errs = append(errs, field.Required(status, fmt.Sprintf("valid values: %q", supported)))
		case !slices.Contains(supported, p.Status):
			errs = append(errs, field.NotSupported(status, p.Status, supported))
		}
	}
	return errs
}

func validateExitCodes(codes *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path, containers sets.Set[string]) field.ErrorList {
	supported := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	var errs field.ErrorList
	switch operator := path.Child("operator"); {
	case codes.Operator == "":
		errs = append(errs, field.Required(operator, fmt.Sprintf("valid values: %q", supported)))
	case !slices.Contains(supported, codes.Operator):
		errs = append(errs, field.NotSupported(operator, codes.Operator, supported))
	}
	if name := codes.ContainerName; name != nil && !containers.Has(*name) {
		errs = append(errs, field.Invalid(path.Child("containerName"), *name, "must be one of the container or initContainer names in the pod template"))
	}
	values := path.Child("values")
	switch n := len(codes.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(values, codes.Values, "at least one value is required"))
	case n > maxExitCodes:
		errs = append(errs, field.TooMany(values, n, maxExitCodes))
	}
	seen := sets.New[int32]()
	for i, code := range codes.Values {
		if codes.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && code == 0 {
			errs = append(errs, field.Invalid(values.Index(i), code, "must not be 0 for the In operator"))
		}
		if seen.Has(code) {
			errs = append(errs, field.Duplicate(values.Index(i), code))
		}
		seen.Insert(code)
	}
	if !slices.IsSorted(codes.Values) {
		errs = append(errs, field.Invalid(values, codes.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules := path.Child("rules")
	switch n := len(spec.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxSuccessRules:
		errs = append(errs, field.TooMany(rules, n, maxSuccessRules))
	}
	for i := range spec.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(&spec.SuccessPolicy.Rules[i], deref(spec.Completions), rules.Index(i))...)
	}
	return errs
}

func validateSuccessRule(rule *batchv1.SuccessPolicyRule, completions int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
		errs = append(errs, field.Required(path, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	var total int32
	if indexes := rule.SucceededIndexes; indexes != nil {
		where := path.Child("succeededIndexes")
		if len(*indexes) > maxSuccessIndexes {
			errs = append(errs, field.TooLong(where, "", maxSuccessIndexes))
		}
		var err error
		if total, err = countIndexes(*indexes, completions); err != nil {
			errs = append(errs, field.Invalid(where, *indexes, fmt.Sprintf("error parsing succeededIndexes: %v", err)))
		}
	}
	if count := rule.SucceededCount; count != nil {
		where := path.Child("succeededCount")
		errs = append(errs, nonNegative(count, where)...)
		if *count > completions {
			errs = append(errs, field.Invalid(where, *count, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		}
		if rule.SucceededIndexes != nil && *count > total {
			errs = append(errs, field.Invalid(where, *count, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateJob(j, old)
	errs = append(errs, validateCompletions(&j.Spec, &old.Spec, path.Child("completions"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(j.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
	errs = append(errs, validateTemplateUpdate(j, old, path.Child("template"))...)
	errs = append(errs, immutable(j.Spec.CompletionMode, old.Spec.CompletionMode, path.Child("completionMode"))...)
	errs = append(errs, immutable(j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy, path.Child("podFailurePolicy"))...)
	errs = append(errs, immutable(j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, immutable(j.Spec.ManagedBy, old.Spec.ManagedBy, path.Child("managedBy"))...)
	return append(errs, immutable(j.Spec.SuccessPolicy, old.Spec.SuccessPolicy, path.Child("successPolicy"))...)
}

func immutable(value, old any, path *field.Path) field.ErrorList {
	if apiequality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, badvalue.Of(value), apivalidation.FieldImmutableErrorMsg)}
}

// validateCompletions lets an indexed job scale when it also runs all at once.
func validateCompletions(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if !indexed(spec) {
		return immutable(spec.Completions, old.Completions, path)
	}
	if apiequality.Semantic.DeepEqual(spec.Completions, old.Completions) || spec.Completions == nil {
		return nil
	}
	if *spec.Completions != deref(spec.Parallelism) {
		return field.ErrorList{field.Invalid(path, *spec.Completions, fmt.Sprintf("can only be modified in tandem with %s", path.Root().Child("parallelism")))}
	}
	return nil
}

// validateTemplateUpdate lets the pods of a suspended job that runs none be
// placed and sized anew, and nothing else of the template change.
func validateTemplateUpdate(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	suspended := deref(old.Spec.Suspend)
	idle := suspended && (old.Status.StartTime == nil || holds(old, batchv1.JobSuspended)) && old.Status.Active == 0
	template, allowed := &j.Spec.Template, old.Spec.Template.DeepCopy()
	if idle {
		allowed.Spec.Affinity = withNodeAffinity(allowed.Spec.Affinity, template.Spec.Affinity)
		allowed.Spec.NodeSelector = template.Spec.NodeSelector
		allowed.Spec.Tolerations = template.Spec.Tolerations
		allowed.Annotations = maps.Clone(template.Annotations)
		allowed.Labels = maps.Clone(template.Labels)
		allowed.Spec.SchedulingGates = template.Spec.SchedulingGates
		adoptResources(allowed.Spec.Containers, template.Spec.Containers)
		adoptResources(allowed.Spec.InitContainers, template.Spec.InitContainers)
		return immutable(template.Spec, allowed.Spec, path.Child("spec"))
	}
	return immutable(template, allowed, path)
}

// withNodeAffinity is affinity with the node affinity of from.
func withNodeAffinity(affinity, from *corev1.Affinity) *corev1.Affinity {
	if affinity == nil && from == nil {
		return nil
	}
	if affinity == nil {
		return &corev1.Affinity{NodeAffinity: from.NodeAffinity}
	}
	affinity.NodeAffinity = nil
	if from != nil {
		affinity.NodeAffinity = from.NodeAffinity
	} else if *affinity == (corev1.Affinity{}) {
		return nil
	}
	return affinity
}

func adoptResources(containers, from []corev1.Container) {
	if len(containers) != len(from) {
		return
	}
	for i := range containers {
		if containers[i].Name == from[i].Name {
			containers[i].Resources = from[i].Resources
		}
	}
}

// dropDisabled clears what is behind closed gates and was not there before; old
// is nil on create.
func dropDisabled(spec, old *batchv1.JobSpec) {
	var template *corev1.PodSpec
	if old != nil {
		template = &old.Template.Spec
	}
	podspec.DropDisabled(&spec.Template.Spec, template)
	if old == nil || old.Scheduling == nil {
		spec.Scheduling = nil
	}
}
