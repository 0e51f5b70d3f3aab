package sqlitestore

import (
	"context"

	"github.com/waggleq/waggle/driver"
)

// Audit implements [driver.Maintainer].
func (s *Store) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	return nil, nil
}
