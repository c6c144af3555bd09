// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

func TestLatest(t *testing.T) {
	day := func(s string) time.Time {
		at, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		schedule, from, now, due string
		n                        int
	}{
		{"*/5 * * * *", "2030-01-01 00:00:00", "2030-01-01 00:04:59", "", 0},
		{"*/5 * * * *", "2030-01-01 00:00:00", "2030-01-01 00:05:00", "2030-01-01 00:05:00", 1},
		{"*/5 * * * *", "2030-01-01 00:00:00", "2030-01-01 00:17:00", "2030-01-01 00:15:00", 3},
		{"0 0 * * *", "2030-01-01 00:00:00", "2031-01-01 12:00:00", "2031-01-01 00:00:00", 365},
		// Many of them, then a gap.
		{"* 9 * * *", "2030-01-01 00:00:00", "2030-01-05 20:00:00", "2030-01-05 09:59:00", 6421},
		{"* * * 1 *", "2030-01-01 00:00:00", "2030-12-31 00:00:00", "2030-01-31 23:59:00", 524160},
		{"* 9 * * 1-5", "2030-01-01 00:00:00", "2030-01-01 09:30:00", "2030-01-01 09:30:00", 31},
	} {
		times, err := cron.ParseStandard("TZ=UTC " + c.schedule)
		if err != nil {
			t.Fatal(err)
		}
		due, n, err := latest(times, day(c.from), day(c.now))
		var want time.Time
		if c.due != "" {
			want = day(c.due)
		}
		if err != nil || !due.Equal(want) || n != c.n {
			t.Errorf("%s from %s to %s: %v, %d, %v; want %s, %d", c.schedule, c.from, c.now, due, n, err, c.due, c.n)
		}
	}
	never, err := cron.ParseStandard("0 0 31 2 *")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := latest(never, day("2030-01-01 00:00:00"), day("2031-01-01 00:00:00")); err == nil {
		t.Error("the 31st of February came")
	}
}
