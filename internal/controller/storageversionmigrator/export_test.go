// SPDX-License-Identifier: Apache-2.0

package storageversionmigrator

import "time"

// SetClock lets the controller believe in another time. Call it before Run.
func (c *Controller) SetClock(now func() time.Time) { c.now = now }
