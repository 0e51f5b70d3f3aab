package main

import (
	"context"
	"time"
)

const defaultBench = 36 * time.Second

func bench(ctx context.Context, f *flags) error { return errFailed }
