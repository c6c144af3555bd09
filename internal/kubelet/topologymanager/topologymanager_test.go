// SPDX-License-Identifier: Apache-2.0

package topologymanager

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/hardware"
)

// scripted gives the same hints to all, and remembers where it was to allocate.
type scripted struct {
	hints map[string][]Hint
	err   error
	got   []Mask
}

func (s *scripted) Hints(*corev1.Pod, *corev1.Container) map[string][]Hint { return s.hints }
func (s *scripted) Allocate(_ context.Context, _ *corev1.Pod, _ *corev1.Container, from Hint) error {
	s.got = append(s.got, from.Affinity)
	return s.err
}

func TestAdmit(t *testing.T) {
	one := []Hint{{1, true}, {2, true}, {3, false}}
	first := []Hint{{1, true}, {3, false}}
	second := []Hint{{2, true}, {3, false}}
	both := []Hint{{3, true}}
	for name, c := range map[string]struct {
		policy string
		a, b   []Hint
		want   Mask
		reason string
	}{
		"none asks nobody":                      {None, second, second, 0, ""},
		"what both like":                        {Restricted, one, second, 2, ""},
		"the lower of equals":                   {SingleNUMANode, one, one, 1, ""},
		"no way to agree, best effort":          {BestEffort, first, second, 1, ""},
		"no way to agree, restricted":           {Restricted, first, second, 0, "TopologyAffinityError"},
		"two nodes are preferred":               {Restricted, both, nil, 3, ""},
		"two nodes are too many":                {SingleNUMANode, both, nil, 0, "TopologyAffinityError"},
		"nothing fits":                          {Restricted, one, []Hint{}, 0, "TopologyAffinityError"},
		"nobody cares: all nodes, none special": {SingleNUMANode, nil, nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := &scripted{hints: map[string][]Hint{"a": c.a}}, &scripted{hints: map[string][]Hint{"b": c.b}}
			var aligned []bool
			m, err := New(Config{Policy: c.policy, Nodes: []hardware.Node{{ID: 0}, {ID: 1}}, Providers: []Provider{a, b}, Aligned: func(_ string, ok bool) { aligned = append(aligned, ok) }})
			if err != nil {
				t.Fatal(err)
			}
			r := m.Admit(t.Context(), &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}})
			if promised := c.policy == Restricted || c.policy == SingleNUMANode; promised && (len(aligned) != 1 || aligned[0] != (c.reason == "")) || !promised && len(aligned) > 0 {
				t.Errorf("alignment was told as %v", aligned)
			}
			if c.reason != "" {
				if r == nil || r.Reason != c.reason || r.Message != "Resources cannot be allocated with Topology locality" || len(a.got) > 0 {
					t.Fatalf("got %v after %v, want %s", r, a.got, c.reason)
				}
				return
			}
			if r != nil || len(a.got) != 1 || a.got[0] != c.want || b.got[0] != c.want {
				t.Errorf("got %v, %v and %v, want %v", r, a.got, b.got, c.want)
			}
		})
	}
}

// What a provider cannot do is unexpected, unless it says more.
func TestRefusals(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	for _, c := range []struct {
		err  error
		want Refusal
	}{
		{errors.New("a storm"), Refusal{"UnexpectedAdmissionError", "Allocate failed due to a storm, which is unexpected"}},
		{&Refusal{"SMTAlignmentError", "odd"}, Refusal{"SMTAlignmentError", "odd"}},
	} {
		m, err := New(Config{Providers: []Provider{&scripted{err: c.err}}})
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Admit(t.Context(), pod); r == nil || *r != c.want {
			t.Errorf("got %v, want %v", r, c.want)
		}
	}
}

// Of sets of the same size, nearer nodes win where that is asked for.
func TestClosest(t *testing.T) {
	nodes := []hardware.Node{{ID: 0, Distances: []uint64{10, 30, 11}}, {ID: 1, Distances: []uint64{30, 10, 30}}, {ID: 2, Distances: []uint64{11, 30, 10}}}
	pairs := []Hint{{MaskOf(0, 1), true}, {MaskOf(0, 2), true}, {MaskOf(1, 2), true}}
	for option, want := range map[string]Mask{"true": MaskOf(0, 2), "false": MaskOf(0, 1)} {
		p := &scripted{hints: map[string][]Hint{"a": pairs}}
		m, err := New(Config{Policy: BestEffort, Options: map[string]string{preferClosest: option}, Nodes: nodes, Providers: []Provider{p}})
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Admit(t.Context(), &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}); r != nil || p.got[0] != want {
			t.Errorf("%s: got %v and %v, want %v", option, r, p.got, want)
		}
	}
}
