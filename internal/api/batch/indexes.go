// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// interval is a run of indexes, both ends included.
type interval struct{ first, last int32 }

// parseInterval reads "3" or "3-5"; indexes are below completions.
func parseInterval(text string, completions int32) (interval, error) {
	parts := strings.Split(text, "-")
	if len(parts) > 2 {
		return interval{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	var ends [2]int
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return interval{}, fmt.Errorf("cannot convert string to integer for index: %q", part)
		}
		if n >= int(completions) {
			return interval{}, fmt.Errorf("too large index: %q", part)
		}
		ends[i] = n
	}
	if len(parts) == 1 {
		ends[1] = ends[0]
	} else if ends[0] >= ends[1] {
		return interval{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", ends[0], ends[1])
	}
	return interval{int32(ends[0]), int32(ends[1])}, nil
}

// countIndexes checks a list such as "1,3-5,7" and returns how many indexes it
// names.
func countIndexes(text string, completions int32) (int32, error) {
	if text == "" {
		return 0, nil
	}
	var total int32
	previous := int32(-1)
	for part := range strings.SplitSeq(text, ",") {
		v, err := parseInterval(part, completions)
		if err != nil {
			return 0, err
		}
		if total > 0 && previous >= v.first {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", previous, v.first)
		}
		total += v.last - v.first + 1
		previous = v.last
	}
	return total, nil
}

// errOverlap reports an index that both succeeded and failed.
func errOverlap(index int32) error {
	return errors.New("failedIndexes and completedIndexes overlap at index: " + strconv.Itoa(int(index)))
}

// checkDisjoint reports the first index that stands in both lists; fragments
// that do not parse are passed over, they are reported elsewhere.
func checkDisjoint(completed, failed string, completions int32) error {
	a, b := parseIntervals(completed, completions), parseIntervals(failed, completions)
	for len(a) > 0 && len(b) > 0 {
		if a[0].first <= b[0].last && b[0].first <= a[0].last {
			return errOverlap(max(a[0].first, b[0].first))
		}
		if a[0].first <= b[0].first {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return nil
}

func parseIntervals(text string, completions int32) []interval {
	var out []interval
	for part := range strings.SplitSeq(text, ",") {
		if v, err := parseInterval(part, completions); err == nil {
			out = append(out, v)
		}
	}
	return out
}
