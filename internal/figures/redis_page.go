package main

func redisPage(r *report, s *settings) string { return "" }
