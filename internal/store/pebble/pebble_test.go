// SPDX-License-Identifier: Apache-2.0

package pebble_test

import (
	"testing"

	"kaji/internal/store"
	"kaji/internal/store/pebble"
	"kaji/internal/store/storetest"
)

func open(t *testing.T, cfg pebble.Config) *pebble.Store {
	t.Helper()
	s, err := pebble.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, pebble.Config{Dir: t.TempDir()}) })
}
