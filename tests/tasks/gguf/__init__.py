"""GGUF: conversion, quantizing, and what llama.cpp makes of the files."""
