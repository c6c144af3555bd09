// SPDX-License-Identifier: Apache-2.0

package fair

import "math"

// Claim is what one level may have of the seats of all, and would like.
type Claim struct{ Low, High, Target float64 }

// Allocate shares total seats out: everybody gets the same fraction of his
// target, but no less than Low and no more than High. It returns the shares and
// the fraction. When not even the low bounds fit, those are the shares.
func Allocate(total int, claims []Claim) (shares []float64, fraction float64) {
	const least = 0.001 // a target of nothing may still get what is left
	shares = make([]float64, len(claims))
	give := func(f float64) (sum float64) {
		for i, c := range claims {
			shares[i] = min(max(c.Low, max(c.Target, least)*f), max(c.High, c.Low))
			sum += shares[i]
		}
		return sum
	}
	want := float64(total)
	if give(0) >= want || len(claims) == 0 {
		return shares, 0
	}
	low, high := 0.0, 1.0
	for give(high) < want && high < 1e12 {
		low, high = high, high*2
	}
	// The sum grows with the fraction: halve until it is exact enough.
	for range 100 {
		middle := (low + high) / 2
		if sum := give(middle); math.Abs(sum-want) < 1e-9 {
			return shares, middle
		} else if sum < want {
			low = middle
		} else {
			high = middle
		}
	}
	give(low)
	return shares, low
}
