// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"kaji/internal/store"
	"kaji/internal/store/memory"
	"kaji/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return memory.New() })
}
