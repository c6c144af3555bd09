// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kaji/internal/scheduler/plugin"
)

// errNoNodes says that the cluster has no nodes at all.
var errNoNodes = errors.New("no nodes available to schedule pods")

// fitError says why no node fits; its text is upstream's, as users see it in
// the FailedScheduling event and the PodScheduled condition.
type fitError struct {
	nodes      int
	statuses   []*plugin.Status // by slot, nil where a node was not judged
	absent     *plugin.Status   // of nodes that were not judged, nil for no word on them
	preFilter  string
	postFilter string
	rejectors  []string
	pending    []string
	chosen     bool // refused after a node was chosen: nothing to preempt for
}

// Error implements error.
func (e *fitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "0/%d nodes are available:", e.nodes)
	if e.preFilter != "" {
		fmt.Fprintf(&b, " %s.", e.preFilter)
	} else if list := e.histogram(); len(list) > 0 {
		fmt.Fprintf(&b, " %s.", strings.Join(list, ", "))
	}
	if e.postFilter != "" {
		b.WriteByte(' ')
		b.WriteString(e.postFilter)
	}
	return b.String()
}

// histogram counts the reasons, sorted as texts.
func (e *fitError) histogram() []string {
	byStatus := map[*plugin.Status]int{}
	judged := 0
	for _, st := range e.statuses {
		if st != nil {
			byStatus[st]++
			judged++
		}
	}
	if rest := e.nodes - judged; rest > 0 && e.absent != nil {
		byStatus[e.absent] += rest
	}
	byReason := map[string]int{}
	for st, n := range byStatus {
		for _, reason := range st.Messages() {
			byReason[reason] += n
		}
	}
	list := make([]string, 0, len(byReason))
	for reason, n := range byReason {
		list = append(list, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(list)
	return list
}
