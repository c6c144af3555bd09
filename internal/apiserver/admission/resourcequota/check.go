// SPDX-License-Identifier: Apache-2.0

package resourcequota

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	config "k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"

	"kaji/internal/api"
	"kaji/internal/api/quota"
	"kaji/internal/apiserver/admission"
)

// check judges one request. It returns the quotas with the request charged:
// copies of those that change.
func (p *Plugin) check(all []*corev1.ResourceQuota, a *admission.Attributes, e *quota.Evaluator) ([]*corev1.ResourceQuota, error) {
	limits, err := p.limits(a, e)
	if err != nil {
		return nil, err
	}
	matching, err := match(all, a, e, &limits)
	if err != nil {
		return nil, err
	}
	usage, err := e.Usage(a.Object)
	if err != nil {
		return nil, err
	}
	if below := quota.Negative(usage); len(below) > 0 {
		return nil, a.Forbidden(fmt.Errorf("quota usage is negative for resource(s): %s", join(below)))
	}
	deltas, uncovered, err := growth(all, matching, usage, a, e)
	if err != nil {
		return nil, err
	}
	if len(deltas) == 0 && len(uncovered) == 0 {
		return all, nil
	}
	if err := limits.refusal(a, e); err != nil {
		return nil, err
	}
	return apply(all, deltas, a)
}

// limits are what the configuration wants a quota for, and what quotas cover.
type limits struct {
	names         []corev1.ResourceName
	scopes        []quota.Scope
	coveredNames  map[corev1.ResourceName]bool
	coveredScopes []quota.Scope
}

// limits finds what of a request may only be used where a quota covers it.
func (p *Plugin) limits(a *admission.Attributes, e *quota.Evaluator) (limits, error) {
	l := limits{coveredNames: map[corev1.ResourceName]bool{}}
	if len(p.limited) == 0 {
		return l, nil
	}
	usage, err := e.Usage(a.Object)
	if err != nil {
		return l, err
	}
	gr := a.Resource.GroupResource()
	for i := range p.limited {
		by := &p.limited[i]
		scopes, err := e.InScopes(by.MatchScopes, a.Object)
		if err != nil {
			return l, err
		}
		l.scopes = append(l.scopes, scopes...)
		if by.APIGroup == gr.Group && by.Resource == gr.Resource {
			l.names = append(l.names, limitedNames(by, usage)...)
		}
	}
	slices.Sort(l.names)
	l.names = slices.Compact(l.names)
	return l, nil
}

func limitedNames(by *config.LimitedResource, usage corev1.ResourceList) (names []corev1.ResourceName) {
	for _, name := range quota.Names(usage) {
		contains := func(part string) bool { return strings.Contains(string(name), part) }
		if q := usage[name]; q.Sign() > 0 && slices.ContainsFunc(by.MatchContains, contains) {
			names = append(names, name)
		}
	}
	return names
}

// refusal says what a request uses that is limited and no quota covers.
func (l *limits) refusal(a *admission.Attributes, e *quota.Evaluator) error {
	var bare []corev1.ResourceName
	for _, name := range l.names {
		if !l.coveredNames[name] {
			bare = append(bare, name)
		}
	}
	if len(bare) > 0 {
		return a.Forbidden(fmt.Errorf("insufficient quota to consume: %s", join(bare)))
	}
	if scopes := e.Uncovered(l.scopes, l.coveredScopes); len(scopes) > 0 {
		return fmt.Errorf("insufficient quota to match these scopes: %v", scopes)
	}
	return nil
}

// match returns the indices of the quotas that limit a request.
func match(all []*corev1.ResourceQuota, a *admission.Attributes, e *quota.Evaluator, l *limits) ([]int, error) {
	var matching []int
	for i, q := range all {
		scopes, err := e.InScopes(quota.Scopes(q), a.Object)
		if err != nil {
			return nil, fmt.Errorf("error matching scopes of quota %s, err: %w", q.Name, err)
		}
		l.coveredScopes = append(l.coveredScopes, scopes...)
		ok, err := e.Matches(q, a.Object)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		names := e.Names(q.Status.Hard)
		if err := e.Constrain(names, a.Object); err != nil {
			return nil, a.Forbidden(fmt.Errorf("failed quota: %s: %w", q.Name, err))
		}
		for _, name := range names {
			if _, known := q.Status.Used[name]; !known {
				return nil, a.Forbidden(fmt.Errorf("status unknown for quota: %s, resources: %s", q.Name, join(names)))
			}
			l.coveredNames[name] = true
		}
		matching = append(matching, i)
	}
	return matching, nil
}

// growth is by how much each quota grows, by its index, zeros left out; and
// by how much usage grows that no quota limits.
func growth(all []*corev1.ResourceQuota, matching []int, usage corev1.ResourceList, a *admission.Attributes, e *quota.Evaluator) (map[int]corev1.ResourceList, corev1.ResourceList, error) {
	full, grown := quota.Positive(usage), corev1.ResourceList(nil)
	if a.Operation == admission.Update {
		if a.Old == nil {
			return nil, nil, a.Forbidden(errors.New("unable to get previous usage since prior version of object was not found"))
		}
		// One without a revision is about to be created by an update.
		if old, ok := a.Old.(api.Object); ok && old.GetResourceVersion() != "" {
			before, err := e.Usage(a.Old)
			if err != nil {
				return nil, nil, err
			}
			grown = quota.Growth(usage, before)
		}
	}
	if len(matching) == 0 {
		if grown != nil {
			return nil, grown, nil
		}
		return nil, full, nil
	}
	deltas := map[int]corev1.ResourceList{}
	for _, i := range matching {
		delta := full
		if grown != nil {
			// An object that comes into the quota's scopes is new to it.
			was, err := e.Matches(all[i], a.Old)
			if err != nil {
				return nil, nil, err
			}
			if was {
				delta = grown
			}
		}
		if len(delta) > 0 {
			deltas[i] = delta
		}
	}
	return deltas, nil, nil
}

// apply charges the quotas or refuses.
func apply(all []*corev1.ResourceQuota, deltas map[int]corev1.ResourceList, a *admission.Attributes) ([]*corev1.ResourceQuota, error) {
	out := slices.Clone(all)
	for i, q := range all {
		asked := quota.Mask(deltas[i], quota.Names(q.Status.Hard))
		if len(asked) == 0 {
			continue
		}
		used := quota.Add(q.Status.Used, asked)
		// What a status says has happened already: it is charged, not judged.
		if over := quota.Exceeding(quota.Mask(used, quota.Names(asked)), q.Status.Hard); len(over) > 0 && a.Subresource != "status" {
			return nil, a.Forbidden(fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
				show(asked, over), show(q.Status.Used, over), show(q.Status.Hard, over)))
		}
		out[i] = q.DeepCopy()
		out[i].Status.Used = used
	}
	return out, nil
}

// show lists the named values.
func show(list corev1.ResourceList, names []corev1.ResourceName) string {
	parts := make([]string, 0, len(names))
	for _, name := range names {
		if q, ok := list[name]; ok {
			parts = append(parts, string(name)+"="+q.String())
		}
	}
	return strings.Join(parts, ",")
}

func join(names []corev1.ResourceName) string {
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = string(name)
	}
	return strings.Join(parts, ",")
}
