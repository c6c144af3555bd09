// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Term selects pods by namespace and labels, and names a topology. Terms with
// the same key select the same pods.
type Term struct {
	TopologyKey string

	namespaces []string
	nsSelector labels.Selector // nil selects none
	selector   labels.Selector
	living     bool // leave out pods that are being deleted
	key        string
}

// NewTerm parses a term of pod's inter-pod affinity.
func NewTerm(pod *corev1.Pod, t *corev1.PodAffinityTerm) (Term, error) {
	selector, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return Term{}, err
	}
	term := Term{TopologyKey: t.TopologyKey, selector: selector}
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		term.namespaces = []string{pod.Namespace}
	} else {
		term.namespaces = slices.Sorted(slices.Values(t.Namespaces))
	}
	if t.NamespaceSelector != nil {
		if term.nsSelector, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return Term{}, err
		}
	}
	term.name()
	return term, nil
}

// NewLivingTerm selects the pods of one namespace that are not being deleted.
func NewLivingTerm(namespace string, selector labels.Selector, topologyKey string) Term {
	t := Term{TopologyKey: topologyKey, namespaces: []string{namespace}, selector: selector, living: true}
	t.name()
	return t
}

func (t *Term) name() {
	var b strings.Builder
	b.WriteString(strings.Join(t.namespaces, ","))
	b.WriteByte('|')
	if t.nsSelector != nil {
		b.WriteByte('*')
		b.WriteString(t.nsSelector.String())
	}
	b.WriteByte('|')
	if reqs, selectable := t.selector.Requirements(); selectable {
		b.WriteByte('+')
		for _, r := range reqs {
			b.WriteString(r.String())
			b.WriteByte(';')
		}
	}
	if t.living {
		b.WriteByte('!')
	}
	t.key = b.String()
}

// Matches says whether the term selects pod.
func (s *Snapshot) Matches(t *Term, pod *corev1.Pod) bool {
	if t.living && pod.DeletionTimestamp != nil {
		return false
	}
	if !slices.Contains(t.namespaces, pod.Namespace) &&
		(t.nsSelector == nil || !t.nsSelector.Matches(s.namespaces[pod.Namespace])) {
		return false
	}
	return t.selector.Matches(labels.Set(pod.Labels))
}

// pair is a label with its value.
type pair struct{ key, value string }

// pairs returns labels of which a pod must have one to be selected; nil says
// that no such set is known.
func (t *Term) pairs() []pair {
	reqs, selectable := t.selector.Requirements()
	if !selectable {
		return nil
	}
	var best []pair
	for _, r := range reqs {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			if values := r.ValuesUnsorted(); len(values) > 0 && (best == nil || len(values) < len(best)) {
				best = best[:0]
				for _, v := range values {
					best = append(best, pair{r.Key(), v})
				}
			}
		}
	}
	return best
}
