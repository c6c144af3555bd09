// SPDX-License-Identifier: Apache-2.0

package fair

import (
	"math"
	"time"
)

// Demand sums up how many seats were in use or waited for over some time.
type Demand struct {
	Average, Deviation float64
	High               int
	Over               time.Duration
}

// demand measures a number of seats over time.
type demand struct {
	seats       int
	high        int
	began       time.Time // of the measurement
	since       time.Time // of the present number
	sum, square float64   // seat-seconds, and the same of seats²
}

func (d *demand) set(seats int, now time.Time) {
	d.advance(now)
	d.seats, d.high = seats, max(d.high, seats)
}

func (d *demand) advance(now time.Time) {
	if d.began.IsZero() {
		d.began = d.since
	}
	if took := now.Sub(d.since).Seconds(); took > 0 {
		d.sum += float64(d.seats) * took
		d.square += float64(d.seats) * float64(d.seats) * took
		d.since = now
	}
}

// take ends a measurement and begins the next.
func (d *demand) take(now time.Time) Demand {
	d.advance(now)
	out := Demand{High: d.high, Over: d.since.Sub(d.began)}
	if s := out.Over.Seconds(); s > 0 {
		out.Average = d.sum / s
		out.Deviation = math.Sqrt(max(d.square/s-out.Average*out.Average, 0))
	}
	*d = demand{seats: d.seats, high: d.seats, began: d.since, since: d.since}
	return out
}
