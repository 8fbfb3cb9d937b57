"""Masks: True where a query may read a key; the queries are the last T of S positions."""

import torch


def causal_mask(T, S):
    query = torch.arange(S - T, S)[:, None]  # (T, 1): the last T positions
    key = torch.arange(S)  # (S)
    return key <= query  # (T, S)


def sliding_window_mask(T, S, window):
    query = torch.arange(S - T, S)[:, None]  # (T, 1)
    key = torch.arange(S)  # (S)
    return (key <= query) & (key > query - window)  # the token itself counts


def padded_mask(valid):
    T = valid.shape[1]  # valid (B, T): True for a real token
    return causal_mask(T, T) & valid[:, None, None, :]  # (B, 1, T, T)


def packed_mask(document):
    T = document.shape[1]  # document (B, T): which document a token is from
    same = document[:, :, None] == document[:, None, :]  # (B, T, T)
    return (causal_mask(T, T) & same)[:, None]  # (B, 1, T, T)
