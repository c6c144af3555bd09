// SPDX-License-Identifier: Apache-2.0

package plugin

import "slices"

// Normalize scales scores so that the highest is MaxScore; reverse turns them
// over, so that zero is best.
func Normalize(scores []int64, reverse bool) {
	if len(scores) == 0 {
		return
	}
	most := slices.Max(scores)
	for i := range scores {
		var v int64
		if most > 0 {
			v = MaxScore * scores[i] / most
		}
		if reverse {
			v = MaxScore - v
		}
		scores[i] = v
	}
}
