// SPDX-License-Identifier: Apache-2.0

package job

import (
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// span is a run of completion indexes, both ends within.
type span struct{ first, last int }

// spans is a set of indexes: ordered, neither touching nor overlapping, so that
// "1,3-5,7" describes millions of indexes in a short status field.
type spans []span

// spansOf returns the set of single indexes.
func spansOf(indexes map[int]bool) spans {
	var out spans
	for i := range indexes {
		out = append(out, span{i, i})
	}
	return out.normal()
}

func (s spans) normal() spans {
	slices.SortFunc(s, func(a, b span) int { return a.first - b.first })
	var out spans
	for _, next := range s {
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return out
}

// with returns the union.
func (s spans) with(other spans) spans { return slices.Concat(s, other).normal() }

func (s spans) total() int {
	n := 0
	for _, each := range s {
		n += each.last - each.first + 1
	}
	return n
}

func (s spans) has(i int) bool {
	_, ok := slices.BinarySearchFunc(s, i, func(each span, i int) int {
		switch {
		case each.last < i:
			return -1
		case each.first > i:
			return 1
		}
		return 0
	})
	return ok
}

// common counts the indexes in both sets.
func (s spans) common(other spans) int {
	n := 0
	for i, j := 0, 0; i < len(s) && j < len(other); {
		n += max(0, min(s[i].last, other[j].last)-max(s[i].first, other[j].first)+1)
		if s[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// missing returns the first n indexes below end that are not in the set.
func (s spans) missing(n, end int) []int {
	var out []int
	next := 0
	for _, each := range append(slices.Clone(s), span{end, end}) {
		for ; next < min(each.first, end) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, each.last+1)
	}
	return out
}

// String is upstream's form: runs of two are written as two indexes.
func (s spans) String() string {
	var b strings.Builder
	for _, each := range s {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(each.first))
		if each.last > each.first {
			separator := byte('-')
			if each.last == each.first+1 {
				separator = ','
			}
			b.WriteByte(separator)
			b.WriteString(strconv.Itoa(each.last))
		}
	}
	return b.String()
}

// parseSpans reads the form that String writes, up to index end; what cannot be
// read is left out.
func parseSpans(text string, end int) spans {
	if text == "" {
		return nil
	}
	var out spans
	for part := range strings.SplitSeq(text, ",") {
		low, high, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(low)
		last := first
		if err == nil && ranged {
			last, err = strconv.Atoi(high)
		}
		if err == nil && first < end && first <= last {
			out = append(out, span{first, min(last, end-1)})
		}
	}
	return out.normal()
}

// indexOf returns a pod's completion index; false if it has none that counts.
func indexOf(pod *corev1.Pod) (int, bool) {
	i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	return i, err == nil && i >= 0
}

// validIndex is indexOf within the Job's completions.
func validIndex(job *batchv1.Job, pod *corev1.Pod) (int, bool) {
	i, ok := indexOf(pod)
	return i, ok && i < int(*job.Spec.Completions)
}

func indexesOf(pods []*corev1.Pod) spans {
	set := map[int]bool{}
	for _, pod := range pods {
		if i, ok := indexOf(pod); ok {
			set[i] = true
		}
	}
	return spansOf(set)
}

// failureCount reads how often an index failed before, from the annotation that
// its pods hand on; anyone may have written there.
func failureCount(pod *corev1.Pod, annotation string) int {
	n, err := strconv.ParseInt(pod.Annotations[annotation], 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}

func allFailures(pod *corev1.Pod) int {
	return failureCount(pod, batchv1.JobIndexFailureCountAnnotation) + failureCount(pod, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// indexFailed says whether with this pod its index has failed for good.
func indexFailed(job *batchv1.Job, pod *corev1.Pod) bool {
	if !podFailed(job, pod) {
		return false
	}
	v := judge(job.Spec.PodFailurePolicy, pod)
	if v.action == batchv1.PodFailurePolicyActionFailIndex {
		return true
	}
	return v.counts() && failureCount(pod, batchv1.JobIndexFailureCountAnnotation) >= int(*job.Spec.BackoffLimitPerIndex)
}
