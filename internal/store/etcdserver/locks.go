// SPDX-License-Identifier: Apache-2.0

package etcdserver

import (
	"hash/maphash"
	"slices"
	"sync"
)

// locks order the writers of the same keys, so that what a transaction read, and
// which lease holds a key, stays true until it is committed. Writers of different
// keys go on side by side and share a sync of the disk.
type locks struct {
	seed    maphash.Seed
	once    sync.Once
	all     sync.RWMutex
	stripes [256]sync.Mutex
}

// lock locks the given keys, or everything for nil; the caller calls the result.
func (l *locks) lock(keys []string) (unlock func()) {
	if keys == nil {
		l.all.Lock()
		return l.all.Unlock
	}
	l.once.Do(func() { l.seed = maphash.MakeSeed() })
	stripes := make([]int, len(keys))
	for i, key := range keys {
		stripes[i] = int(maphash.String(l.seed, key) % uint64(len(l.stripes)))
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	l.all.RLock()
	for _, i := range stripes {
		l.stripes[i].Lock()
	}
	return func() {
		for _, i := range stripes {
			l.stripes[i].Unlock()
		}
		l.all.RUnlock()
	}
}
