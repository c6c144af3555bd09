// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"

	"kaji/internal/api/rule"
)

// webhook is what mutating and validating webhooks have in common.
type webhook struct {
	name                              string
	client                            *admissionregistrationv1.WebhookClientConfig
	rules                             []admissionregistrationv1.RuleWithOperations
	failurePolicy                     *admissionregistrationv1.FailurePolicyType
	matchPolicy                       *admissionregistrationv1.MatchPolicyType
	namespaceSelector, objectSelector *metav1.LabelSelector
	sideEffects                       *admissionregistrationv1.SideEffectClass
	timeout                           *int32
	reviewVersions                    []string
	conditions                        []admissionregistrationv1.MatchCondition
	reinvocation                      *admissionregistrationv1.ReinvocationPolicyType
}

func mutatingWebhooks(c *admissionregistrationv1.MutatingWebhookConfiguration) []webhook {
	var out []webhook
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		out = append(out, webhook{h.Name, &h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions, h.ReinvocationPolicy})
	}
	return out
}

func validatingWebhooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) []webhook {
	var out []webhook
	for i := range c.Webhooks {
		h := &c.Webhooks[i]
		out = append(out, webhook{h.Name, &h.ClientConfig, h.Rules, h.FailurePolicy, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector,
			h.SideEffects, h.TimeoutSeconds, h.AdmissionReviewVersions, h.MatchConditions, nil})
	}
	return out
}

func reviewVersions() []string { return []string{"v1", "v1beta1"} }

func known(version string) bool { return slices.Contains(reviewVersions(), version) }

// webhookRules says which rules bind: an update need not mend what was stored
// before a rule existed.
type webhookRules struct {
	noSideEffects, knownVersion, uniqueNames bool
	conditions                               bool
	selectors                                metavalidation.LabelSelectorValidationOptions
	stored                                   sets.Set[string]
}

func rulesFor(hooks, old []webhook, update bool) webhookRules {
	r := webhookRules{noSideEffects: true, knownVersion: true, uniqueNames: true, conditions: true, stored: sets.New[string]()}
	if !update {
		return r
	}
	names := sets.New[string]()
	for i := range old {
		h := &old[i]
		r.noSideEffects = r.noSideEffects && h.sideEffects != nil && slices.Contains(harmless(), *h.sideEffects)
		r.knownVersion = r.knownVersion && (len(h.reviewVersions) == 0 || slices.ContainsFunc(h.reviewVersions, known))
		r.uniqueNames = r.uniqueNames && !names.Has(h.name)
		names.Insert(h.name)
		for _, s := range []*metav1.LabelSelector{h.namespaceSelector, h.objectSelector} {
			if len(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0 {
				r.selectors.AllowInvalidLabelValueInSelector = true
			}
		}
		for _, c := range h.conditions {
			r.stored.Insert(c.Expression)
		}
	}
	r.conditions = len(hooks) != len(old)
	for i := range hooks {
		r.conditions = r.conditions || !apiequality.Semantic.DeepEqual(hooks[i].conditions, old[i].conditions)
	}
	return r
}

func harmless() []admissionregistrationv1.SideEffectClass {
	return []admissionregistrationv1.SideEffectClass{admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun}
}

func (c *compilers) validateWebhooks(hooks []webhook, rules webhookRules) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range hooks {
		h, path := &hooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, c.validateWebhook(h, rules, path)...)
		errs = append(errs, validateReviewVersions(h.reviewVersions, rules.knownVersion, path.Child("admissionReviewVersions"))...)
		if rules.uniqueNames && h.name != "" {
			if names.Has(h.name) {
				errs = append(errs, field.Duplicate(path.Child("name"), h.name))
			}
			names.Insert(h.name)
		}
	}
	return errs
}

func (c *compilers) validateWebhook(h *webhook, rules webhookRules, path *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(path.Child("name"), h.name)
	for i := range h.rules {
		errs = append(errs, validateOperations(&h.rules[i], path.Child("rules").Index(i))...)
	}
	if h.failurePolicy != nil {
		errs = append(errs, rule.OneOf(*h.failurePolicy, path.Child("failurePolicy"), admissionregistrationv1.Fail, admissionregistrationv1.Ignore)...)
	}
	if h.matchPolicy != nil {
		errs = append(errs, rule.OneOf(*h.matchPolicy, path.Child("matchPolicy"), admissionregistrationv1.Equivalent, admissionregistrationv1.Exact)...)
	}
	effects := harmless()
	if !rules.noSideEffects {
		effects = append(effects, admissionregistrationv1.SideEffectClassSome, admissionregistrationv1.SideEffectClassUnknown)
	}
	if where := path.Child("sideEffects"); h.sideEffects == nil {
		var names []string
		for _, e := range effects {
			names = append(names, string(e))
		}
		errs = append(errs, field.Required(where, "must specify one of "+strings.Join(names, ", ")))
	} else {
		errs = append(errs, rule.OneOf(*h.sideEffects, where, effects...)...)
	}
	if t := h.timeout; t != nil && (*t > 30 || *t < 1) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, metavalidation.ValidateLabelSelector(h.namespaceSelector, rules.selectors, path.Child("namespaceSelector"))...)
	errs = append(errs, metavalidation.ValidateLabelSelector(h.objectSelector, rules.selectors, path.Child("objectSelector"))...)
	if h.reinvocation != nil {
		errs = append(errs, rule.OneOf(*h.reinvocation, path.Child("reinvocationPolicy"), admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)...)
	}
	client := path.Child("clientConfig")
	switch service := h.client.Service; {
	case (h.client.URL == nil) == (service == nil):
		errs = append(errs, field.Required(client, "exactly one of url or service is required"))
	case service == nil:
		errs = append(errs, webhookutil.ValidateWebhookURL(client.Child("url"), *h.client.URL, true)...)
	default:
		var port int32
		if service.Port != nil {
			port = *service.Port
		}
		errs = append(errs, webhookutil.ValidateWebhookService(client.Child("service"), service.Name, service.Namespace, service.Path, port)...)
	}
	if rules.conditions {
		errs = append(errs, c.validateConditions(h.conditions, false, rules.stored, path.Child("matchConditions"))...)
	}
	return errs
}

func validateReviewVersions(versions []string, needKnown bool, path *field.Path) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of "+strings.Join(reviewVersions(), ", "))}
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, v := range versions {
		if seen.Has(v) {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		seen.Insert(v)
		errs = append(errs, rule.Messages(path.Index(i), v, validation.IsDNS1035Label(v))...)
	}
	if needKnown && !slices.ContainsFunc(versions, known) {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of "+strings.Join(reviewVersions(), ", ")))
	}
	return errs
}
