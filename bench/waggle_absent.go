//go:build !waggle

package main

func waggleSpecs() []*spec { return nil }
