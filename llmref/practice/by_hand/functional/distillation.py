"""Distillation: on given texts with a temperature, a mixture, and on the student's own texts."""

import torch


def kd_loss(student, teacher, tau):  # logits (..., V); tau^2 KL(teacher || student)
    log_p, log_q = (teacher / tau).log_softmax(-1), (student / tau).log_softmax(-1)
    p = log_p.exp()
    gap = torch.where(p > 0, log_p - log_q, 0.0)  # 0 log 0 = 0
    return tau**2 * (p * gap).sum(-1)  # (...)


def jsd_loss(student, teacher, beta):  # beta: the teacher's share of the mixture
    p, q = teacher.softmax(-1), student.softmax(-1)
    m = beta * p + (1 - beta) * q
    log_m = m.clamp(min=torch.finfo(m.dtype).tiny).log()  # the logarithm of 0 has no gradient
    return beta * kd_loss(log_m, teacher, 1) + (1 - beta) * kd_loss(log_m, student, 1)


def on_policy_loss(logp, teacher_logp, mask):  # (N, T), tokens that the student drew
    k1 = torch.where(mask, logp - teacher_logp, 0.0).detach()  # a cost: it carries no gradient
    ahead = k1.flip(1).cumsum(1).flip(1)  # of this token and of all that follow
    return torch.where(mask, ahead * logp, 0.0).sum(1).mean()  # sum over tokens, mean over texts
