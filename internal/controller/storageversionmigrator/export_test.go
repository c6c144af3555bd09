// SPDX-License-Identifier: Apache-2.0

package storageversionmigrator

import (
	"context"
	"time"
)

// SetClock lets the controller believe in another time. Call it before Run.
func (c *Controller) SetClock(now func() time.Time) { c.now = now }

// Reconcile looks at one migration.
func (c *Controller) Reconcile(ctx context.Context, name string) error { return c.reconcile(ctx, name) }
