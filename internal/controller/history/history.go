// SPDX-License-Identifier: Apache-2.0

// Package history keeps the past templates of StatefulSets and DaemonSets as
// ControllerRevisions, named and numbered as kubectl rollout expects them. The
// two controllers share these rules; when revisions are made is theirs.
package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// longestPrefix leaves room for the hash in a revision's name.
const longestPrefix = 223

// Name returns a revision's name.
func Name(prefix, hash string) string {
	if len(prefix) > longestPrefix {
		prefix = prefix[:longestPrefix]
	}
	return prefix + "-" + hash
}

// Hash returns the hash of a revision's data; probe, the count of collisions,
// changes it.
func Hash(data []byte, probe *int32) string {
	h := fnv.New32()
	h.Write(data)
	if probe != nil {
		h.Write([]byte(strconv.FormatInt(int64(*probe), 10)))
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// Data returns what a revision holds of a workload: a patch that puts its
// template back.
func Data(template *corev1.PodTemplateSpec) ([]byte, error) {
	text, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// Template returns the template a revision holds.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	base := appsv1.StatefulSet{}
	empty, err := json.Marshal(&base)
	if err != nil {
		return nil, err
	}
	patched, err := strategicpatch.StrategicMergePatch(empty, r.Data.Raw, &base)
	if err != nil {
		return nil, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	if err := json.Unmarshal(patched, &base); err != nil {
		return nil, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	return &base.Spec.Template, nil
}

// Equal says whether two revisions hold the same.
func Equal(a, b *appsv1.ControllerRevision) bool { return bytes.Equal(a.Data.Raw, b.Data.Raw) }

// Sort orders revisions from the oldest to the newest.
func Sort(all []*appsv1.ControllerRevision) {
	slices.SortStableFunc(all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Next is the number after the newest revision's.
func Next(all []*appsv1.ControllerRevision) int64 {
	most := int64(0)
	for _, r := range all {
		most = max(most, r.Revision)
	}
	return most + 1
}

// Surplus returns the revisions to delete, the oldest first: those beyond the
// limit that nothing uses.
func Surplus(all []*appsv1.ControllerRevision, limit int, used func(*appsv1.ControllerRevision) bool) []*appsv1.ControllerRevision {
	var idle []*appsv1.ControllerRevision
	for _, r := range all {
		if !used(r) {
			idle = append(idle, r)
		}
	}
	Sort(idle)
	return idle[:max(0, len(idle)-limit)]
}
